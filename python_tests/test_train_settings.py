"""Settings, their presets against the figures of the paper, and the plan that follows from them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from focus import conform
from focus.cli import main
from focus.cli.train import parse
from focus.errors import FocusError
from focus.losses import SegmentationWeights
from focus.nets import EncoderSettings
from focus.train import Settings, plan, shipped_checkpoint
from focus.train.config import (
    DataSettings,
    GuardSettings,
    LogSettings,
    OptimiserSettings,
    Rate,
    RobustSettings,
    StageSettings,
)
from focus.train.methods import METHODS, Method
from focus.train.ranges import RANGES
from focus.train.schedule import SEGMENTATION_STREAM, rate_of, robust_sigma


def test_paper_preset_has_the_figures_of_the_paper() -> None:
    settings = Settings.preset("paper")
    assert (settings.batch_size, settings.image_size, settings.method) == (12, 224, "focus")
    stages = settings.stages
    assert (stages.initialise, stages.segmentation, stages.joint) == (300_000, 30_000, 200_000)
    assert (stages.cycle, stages.segmentation_in_cycle) == (30_000, 5_000)
    assert settings.optimiser.name == "adadelta"
    assert settings.optimiser.initialise == Rate(start=0.1, decay=0.99, decay_every=5_000)
    assert settings.optimiser.segmentation.start == 0.03
    joint = settings.optimiser.joint_reconstruction
    assert joint.start == pytest.approx(settings.optimiser.initialise.at(300_000, 300_000))  # it goes on
    assert settings.optimiser.joint_segmentation.start == pytest.approx(0.06 * joint.start)
    assert (settings.robust.sigma, settings.robust.cutoff) == (0.043, 3.0)
    assert robust_sigma(settings.robust, 0.0) == pytest.approx(0.043)  # from the first iteration on
    weights = settings.reconstruction_weights
    assert (weights.pixel, weights.perceptual, weights.landmark, weights.regularisation) == (0.5, 0.25, 5e-4, 0.1)
    assert (weights.area, weights.robust) == (0.06, 0.5)
    mask = settings.segmentation_weights
    assert (mask.neighbor, mask.distance, mask.area, mask.preserve, mask.binary) == (15, 3, 0.5, 2.5, 10)
    assert settings.binary_ramp == 0


def test_official_preset_differs_where_the_released_code_does() -> None:
    settings = Settings.preset("official")
    assert settings.optimiser.joint_reconstruction.start == pytest.approx(0.1 * 0.99**60 * 0.8)
    assert settings.optimiser.joint_reconstruction.decay == 0.99
    assert settings.optimiser.joint_segmentation.decay == 0.95
    assert settings.segmentation_weights.preserve == 0.25
    assert settings.stages == Settings.preset("paper").stages


@pytest.mark.parametrize("name", ["paper", "official", "small"])
def test_settings_survive_json(name: str) -> None:
    settings = replace(
        Settings.preset(name),  # type: ignore[arg-type]
        start=Path("start.safetensors"),
        data=DataSettings(photos=Path("photos"), landmarks=Path("landmarks.csv")),
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_settings_of_an_older_version_take_defaults() -> None:
    assert Settings.from_dict({"seed": 3}) == Settings(seed=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 3}, "unknown: sed"),
        ({"seed": "three"}, "settings.seed: expected int"),
        ({"seed": True}, "settings.seed: expected int"),
        ({"stages": 5}, "settings.stages"),
        ({"method": "magic"}, "settings.method"),
        ({"network": {"encoder": {"widths": [64, "x"]}}}, "settings.network.encoder.widths"),
    ],
)
def test_settings_that_cannot_be_understood(values: dict[str, object], message: str) -> None:
    with pytest.raises(FocusError, match=message):
        Settings.from_dict(values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"image_size": 8}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"stages": StageSettings(cycle=10, segmentation_in_cycle=10)}, "segmentation_in_cycle"),
        ({"stages": StageSettings(joint=-1)}, "stages.joint"),
        ({"robust": RobustSettings(plain=0.7, anneal=0.7)}, "robust.plain"),
        ({"robust": RobustSettings(cutoff=0.0)}, "robust.cutoff"),
        ({"segmentation_weights": SegmentationWeights(neighbor_window=4)}, "neighbor_window"),
        ({"optimiser": OptimiserSettings(gradient_clip=-1.0)}, "gradient_clip"),
        ({"optimiser": OptimiserSettings(segmentation=Rate(float("nan")))}, r"segmentation\.start"),
        ({"optimiser": OptimiserSettings(initialise=Rate(decay_every=0))}, "decay_every"),
        ({"data": DataSettings(validation=-1)}, "data.validation"),
        ({"data": DataSettings(distinct=0)}, "data.distinct"),
        ({"log": LogSettings(pictures=-1)}, "log.pictures"),
        ({"data": DataSettings(photos=Path("photos"))}, "belong together"),
        ({"method": "oracle", "data": DataSettings(photos=Path("p"), landmarks=Path("l"))}, "true masks"),
        ({"method": "supervised", "data": DataSettings(adapt_photos=Path("p"), adapt_landmarks=Path("l"))}, "masks"),
        ({"method": "cutmix", "batch_size": 1}, "at least 2, for method 'cutmix'"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object], message: str) -> None:
    with pytest.raises(FocusError, match=message):
        replace(Settings(), **changes)  # type: ignore[arg-type]


def test_rates() -> None:
    steps = Rate(0.1, decay=0.5, decay_every=10)
    assert [steps.at(i, 100) for i in (0, 9, 10, 25)] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    cosine = Rate(0.1, cosine_end=0.2)
    assert [cosine.at(i, 100) for i in (0, 50, 100)] == pytest.approx([0.1, 0.06, 0.02])
    assert [Rate(1.0, decay=1.0, warm_up=4).at(i, 9) for i in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_robust_loss_warms_up_and_anneals() -> None:
    robust = RobustSettings(plain=0.25, anneal=0.5, sigma_start=0.172, sigma=0.043)
    assert [robust_sigma(robust, p) for p in (0.0, 0.24)] == [None, None]
    assert [robust_sigma(robust, p) for p in (0.25, 0.5, 0.75, 0.99)] == pytest.approx([0.172, 0.086, 0.043, 0.043])


def test_plan_of_the_paper() -> None:
    turns = plan(Settings.preset("paper").stages, "focus")
    assert [(t.stage, t.network, t.length) for t in turns[:4]] == [
        ("initialise", "reconstruction", 300_000),
        ("segmentation", "segmentation", 30_000),
        ("joint", "segmentation", 5_000),
        ("joint", "reconstruction", 25_000),
    ]
    assert turns[-1].end == 530_000
    assert [t.length for t in turns if t.stage == "joint"] == [5_000, 25_000] * 6 + [5_000, 15_000]
    assert all(after.start == before.end for before, after in itertools.pairwise(turns))
    third = turns[5]
    assert (third.cycle, third.before, third.total, third.seen) == (1, 25_000, 165_000, 325_000)
    assert (third.iteration(third.start + 7), third.batch(third.start + 7)) == (25_007, 325_007)
    optimiser = Settings.preset("official").optimiser
    assert [rate_of(optimiser, t).start for t in turns[:4]] == pytest.approx(
        [0.1, 0.03, 0.06 * 0.0437725, 0.0437725], rel=1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_methods_see_the_same_faces_at_the_same_rates(method: Method) -> None:
    stages = StageSettings(initialise=7, segmentation=3, joint=25, adapt=9, cycle=10, segmentation_in_cycle=4)

    def reconstruction(name: Method) -> list[tuple[str, int, int, int]]:
        return [
            (turn.stage, turn.batch(step), turn.iteration(step), turn.total)
            for turn in plan(stages, name)
            if turn.network == "reconstruction"
            for step in range(turn.start, turn.end)
        ]

    assert reconstruction(method) == reconstruction("focus")
    assert [number for _, number, _, _ in reconstruction(method)] == list(range(7 + 6 + 6 + 1 + 5))
    segments = method in ("focus", "supervised")
    assert any(turn.network == "segmentation" for turn in plan(stages, method)) == segments


def test_the_two_networks_share_no_batch() -> None:
    turns = plan(StageSettings(initialise=5, segmentation=3, joint=20, cycle=10, segmentation_in_cycle=4), "focus")
    batches = [turn.batch(step) for turn in turns for step in range(turn.start, turn.end)]
    assert len(set(batches)) == len(batches) == 28
    assert sorted(b for b in batches if b >= SEGMENTATION_STREAM) == [SEGMENTATION_STREAM + i for i in range(11)]


def test_a_shorter_run_keeps_its_proportions() -> None:
    short = Settings.preset("paper").scaled(0.01)
    stages = short.stages
    assert (stages.initialise, stages.segmentation, stages.joint, stages.adapt) == (3_000, 300, 2_000, 0)
    assert (stages.cycle, stages.segmentation_in_cycle) == (300, 50)
    assert short.optimiser.initialise.at(3_000, 3_000) == pytest.approx(0.1 * 0.99**60)
    assert short.scaled(1e-6).stages == StageSettings(1, 1, 2, 0, cycle=2, segmentation_in_cycle=1)
    for factor in (0, -1, float("nan"), float("inf")):
        with pytest.raises(FocusError, match="scale: expected a finite number > 0"):
            short.scaled(factor)


def test_settings_work_on_the_command_line() -> None:
    arguments = ["--method", "mofa", "--stages.joint", "40", "--data.photos", "p", "--data.landmarks", "p/l.csv"]
    arguments += ["--optimiser.joint-reconstruction.start", "0.5", "--network.segmentation.filters", "4", "8"]
    settings = tyro.cli(Settings, default=Settings.preset("small"), args=arguments)
    small = Settings.preset("small")
    assert settings == replace(
        small,
        method="mofa",
        stages=replace(small.stages, joint=40),
        data=replace(small.data, photos=Path("p"), landmarks=Path("p/l.csv")),
        optimiser=replace(
            small.optimiser, joint_reconstruction=replace(small.optimiser.joint_reconstruction, start=0.5)
        ),
        network=replace(small.network, segmentation=replace(small.network.segmentation, filters=(4, 8))),
    )


ODD = (float("nan"), float("inf"), float("-inf"), -1, 0, 1, 1e30, 2**31, 10**400, True, "3", None, [1], np.int64(3))


def _fields(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted name of every leaf of settings, its declared type, and its value."""
    for item in fields(settings):
        value, kind = getattr(settings, item.name), conform.hints(type(settings))[item.name]
        if is_dataclass(value):
            yield from _fields(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", kind, value


def _numeric(kind: Any) -> bool:
    return bool({int, float} & {kind, *get_args(kind), *(part for part in get_args(kind) for part in get_args(part))})


LEAVES = list(_fields(Settings()))
NUMERIC = [name for name, kind, _ in LEAVES if _numeric(kind)]


def _with(settings: Any, name: str, value: Any) -> Any:
    """Settings with one leaf replaced, as a program does it."""
    first, _, rest = name.partition(".")
    return replace(settings, **{first: _with(getattr(settings, first), rest, value) if rest else value})


def _as_json(name: str, value: Any) -> Settings:
    content: dict[str, Any] = {}
    inner = content
    *groups, last = name.split(".")
    for group in groups:
        inner = inner.setdefault(group, {})
    inner[last] = list(value) if isinstance(value, tuple) else value
    return Settings.from_dict(json.loads(json.dumps(content, default=int)))


def test_every_number_has_a_range() -> None:
    literal = {"segmentation_weights.neighbor_power"}
    assert set(NUMERIC) | literal == set(RANGES)
    assert all(any(value in allowed for value in (0, 1, 16, 0.5)) for allowed in RANGES.values())


@pytest.mark.parametrize("name", NUMERIC)
def test_numbers_out_of_range_are_refused_by_name(name: str) -> None:
    """Whatever is put into a field by a program or by JSON is taken as it stands, or refused with its name."""
    standard = next(value for leaf, _, value in LEAVES if leaf == name)
    for odd in ODD:
        for value in [odd, (odd,) * len(standard)] if isinstance(standard, tuple) else [odd]:
            for make in (lambda v: _with(Settings(), name, v), lambda v: _as_json(name, v)):
                found, told = _outcome(make, value)
                if found is None:
                    assert name.split(".")[-1].split("_")[0] in told, (value, told)
                    continue
                numbers = _value(found, name)
                for number in numbers if isinstance(numbers, tuple) else (numbers,):
                    assert number is None or (type(number) in (int, float) and number in RANGES[name]), value


def _outcome(make: Callable[[Any], Settings], value: Any) -> tuple[Settings | None, str]:
    try:
        return make(value), ""
    except FocusError as error:
        return None, str(error)


def _value(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize("name", [name for name, _, _ in LEAVES if name not in NUMERIC])
def test_values_of_another_type_are_refused(name: str) -> None:
    for value in (3.5, object(), ["a", 3], {"a": 1}):
        with pytest.raises(FocusError):
            _with(Settings(), name, value)


def test_numbers_of_numpy_and_texts_as_paths_are_taken() -> None:
    settings = replace(
        Settings(), batch_size=np.int32(4), start="a.safetensors", guard=GuardSettings(lowest=np.float32(0))
    )
    assert type(settings.batch_size) is int
    assert type(settings.guard.lowest) is float
    assert settings.start == Path("a.safetensors")
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_what_only_together_is_too_much_is_refused() -> None:
    with pytest.raises(FocusError, match="below 2\\*\\*31, so that indices fit"):
        replace(Settings(), image_size=8192, batch_size=64)
    with pytest.raises(FocusError, match="stages"):
        replace(Settings(), stages=StageSettings(initialise=2**31 - 1, joint=2**31 - 1))
    with pytest.raises(FocusError, match="scale"):
        Settings().scaled(1e300)
    with pytest.raises(FocusError, match="stages"):
        Settings().scaled(1e6)
    with pytest.raises(FocusError, match="as many blocks as widths"):
        EncoderSettings(blocks=(1, 2))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=3), part, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([*(name for name, _, _ in LEAVES), *(item.name for item in fields(Settings))]), JSON)
def test_whatever_json_says_is_taken_or_refused(name: str, value: Any) -> None:
    found, told = _outcome(lambda content: _as_json(name, content), value)
    assert (found is None) == bool(told)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "1000000"], "workers"),
        (["--threads", "-1"], "threads"),
        (["--batch-size", "0"], "batch_size"),
        (["--batch-size", "1000000000"], "batch_size"),
        (["--scale", "nan"], "scale"),
        (["--scale", "0"], "scale"),
        (["--scale", "inf"], "scale"),
        (["--scale", "1e300"], "scale"),
        (["--optimiser.initialise.start", "nan"], "optimiser.initialise.start"),
        (["--robust.sigma", "-1"], "robust.sigma"),
        (["--data.distinct", "99999999999"], "data.distinct"),
    ],
)
def test_absurd_options_are_refused_before_work_starts(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--out", str(tmp_path / "run"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_photos_alone_choose_the_recipe() -> None:
    alone = parse(["--photos", "p"])
    assert (alone.preset, alone.out, alone.settings.teacher) == ("photos", Path("out/train"), "fit")
    paper = parse(["--photos=p", "--landmarks", "l.csv", "--teacher", "none"])
    assert (paper.preset, paper.settings.teacher, paper.complete().stages.again) == ("small", "none", 0)
    truth = parse(["--preset", "photos", "--teacher", "truth", "--out", "o"])
    assert truth.complete().stages.again == 0
    assert truth.complete().start is None
    named = replace(alone, landmarks=Path("l.csv")).complete()
    assert named.start == shipped_checkpoint("photos")
    other = parse(["--photos", "p", "--landmarks", "l.csv", "--face.identity", "7"]).complete()
    assert other.start is None, "of another face"
