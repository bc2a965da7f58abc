"""What makes training fast, or small, changes nothing but rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from focus.cli import main
from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings, Change, Changes
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.losses import ReconstructionWeights
from focus.nets import EncoderSettings, FilterBank, NetworkSettings, SegmentationSettings
from focus.train import Networks, Settings, Trainer, load_checkpoint
from focus.train.capture import WARM_UP as CAPTURE_WARM_UP
from focus.train.capture import Graphs
from focus.train.config import (
    DataSettings,
    FaceSettings,
    LogSettings,
    MeasureSettings,
    OptimiserSettings,
    Rate,
    RobustSettings,
    StageSettings,
)
from focus.train.schedule import Turn

SETTINGS = Settings(
    seed=5,
    image_size=32,
    batch_size=6,
    face=FaceSettings(detail="small", identity=4, expression=2, albedo=3),
    network=NetworkSettings(
        EncoderSettings(
            block="basic",
            blocks=(1, 1),
            widths=(8, 16),
            strides=(2, 2),
            stem_width=8,
            stem_kernel=3,
            output_width=None,
            normalisation="group",
        ),
        SegmentationSettings(filters=(8, 8), dropout=0.0, normalisation="group"),
    ),
    data=DataSettings(validation=0),
    stages=StageSettings(initialise=4, segmentation=2, joint=4, cycle=4, segmentation_in_cycle=2),
    robust=RobustSettings(plain=0.5),
    reconstruction_weights=ReconstructionWeights(area=0.5),
    mask_gradient=True,
    optimiser=OptimiserSettings(name="adam"),
    log=LogSettings(every=2, tensorboard="off", pictures=0),
    device="cpu",
    threads=1,
)
BATCH_NORM = replace(
    SETTINGS,
    network=NetworkSettings(
        replace(SETTINGS.network.encoder, normalisation="batch"),
        replace(SETTINGS.network.segmentation, normalisation="batch"),
    ),
)
DROPOUT = replace(BATCH_NORM.network.segmentation, dropout=0.5)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return SETTINGS.face.build()


@pytest.fixture(scope="module")
def batch(model: MorphableModel) -> FaceBatch:
    return SyntheticFaces(model, SETTINGS.image_size, seed=1).batch(0, SETTINGS.batch_size)


@pytest.fixture
def make(model: MorphableModel, batch: FaceBatch) -> Callable[..., Trainer]:
    class Data:
        def batch(self, step: int) -> FaceBatch:
            return batch

    def trainer(settings: Settings = SETTINGS, *, own: bool = False, **parts: Any) -> Trainer:
        torch.manual_seed(settings.seed)
        networks = Networks.build(settings, model)
        return Trainer(settings, copy.deepcopy(model) if own else model, networks, Data(), FilterBank(), **parts)

    return trainer


def turns_of(trainer: Trainer) -> list[tuple[Turn, int]]:
    """Each kind of turn; of the first stage an iteration with L_pixel and one with the robust likelihood."""
    return [(trainer.plan[0], 0), *((turn, turn.end - 1) for turn in trainer.plan)]


def gradient(trainer: Trainer, turn: Turn, step: int, batch: FaceBatch) -> Tensor:
    trainer._begin(turn)
    network = trainer.networks.of(turn.network)
    network.zero_grad()
    trainer.learner._gradients(turn, step, batch)
    return torch.cat([p.grad.flatten().clone() for p in network.parameters() if p.grad is not None])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_have_the_gradient_of_the_whole(make: Callable[..., Trainer], batch: FaceBatch, parts: int) -> None:
    """Visible pixels are spread unevenly over the parts: a mean of their losses would be another loss."""
    whole = make()
    divided = make(replace(SETTINGS, measures=MeasureSettings(parts=parts)))
    for turn, step in turns_of(whole):
        expected = gradient(whole, turn, step, batch)
        assert relative(gradient(divided, turn, step, batch), expected) < 1e-5, turn
    turn = next(turn for turn in whole.plan if (turn.stage, turn.network) == ("joint", "reconstruction"))
    naive = torch.stack([gradient(whole, turn, turn.start, batch[i::parts]) for i in range(parts)]).mean(dim=0)
    assert relative(naive, gradient(whole, turn, turn.start, batch)) > 1e-4


def test_parts_report_the_loss_of_the_whole(make: Callable[..., Trainer], batch: FaceBatch) -> None:
    whole, divided = make(), make(replace(SETTINGS, measures=MeasureSettings(parts=3)))
    for turn, step in turns_of(whole):
        for trainer in (whole, divided):
            trainer._begin(turn)
        one, other = (trainer.learner._gradients(turn, step, batch) for trainer in (whole, divided))
        assert one.keys() == other.keys()
        assert float(other["loss"]) == pytest.approx(float(one["loss"]), rel=1e-5)


def test_statistics_see_each_part_once(make: Callable[..., Trainer], batch: FaceBatch) -> None:
    trainer = make(replace(BATCH_NORM, measures=MeasureSettings(parts=3)))
    turn = trainer.plan[0]
    trainer._begin(turn)
    trainer._iterate(turn, batch)
    seen = [b for n, b in trainer.networks.reconstruction.named_buffers() if n.endswith("num_batches_tracked")]
    assert seen
    assert all(int(count) == 3 for count in seen)


def test_parts_divide_the_batch(make: Callable[..., Trainer]) -> None:
    with pytest.raises(FocusError, match=r"measures.parts: expected a divisor of the 6 faces of a batch .*, got 4"):
        make(replace(SETTINGS, measures=MeasureSettings(parts=4)))


@pytest.mark.parametrize("method", ["cutmix", "cutout"])
def test_parts_have_the_patches_of_the_whole(make: Callable[..., Trainer], batch: FaceBatch, method: Any) -> None:
    settings = replace(SETTINGS, method=method)
    whole, divided = make(settings), make(replace(settings, measures=MeasureSettings(parts=2)))
    turn = whole.plan[-1]
    expected = gradient(whole, turn, turn.start, batch)
    assert relative(gradient(divided, turn, turn.start, batch), expected) < 1e-5


@pytest.mark.parametrize("parts", [1, 3])
def test_two_processes_have_the_gradient_of_one(
    make: Callable[..., Trainer],
    batch: FaceBatch,
    tmp_path: Path,
    run_in_two_processes: Callable[..., None],
    parts: int,
) -> None:
    """Under torchrun's environment, with half of the batch each, in parts or not."""
    program = f"""
        import sys
        import torch
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_train_measures as here
        from dataclasses import replace
        from focus.train.distributed import place, process_group

        torch.set_num_threads(1)
        with process_group(torch.device("cpu")):
            rank, size = place()
            batch = here.SyntheticFaces(here.SETTINGS.face.build(), 32, seed=1).batch(0, 6)[rank * 3 : rank * 3 + 3]
            settings = replace(here.SETTINGS, measures=here.MeasureSettings(parts={parts}))
            torch.manual_seed(settings.seed)
            model = settings.face.build()
            networks = here.Networks.build(settings, model)
            trainer = here.Trainer(settings, model, networks, None, here.FilterBank())
            found = [here.gradient(trainer, *turn, batch) for turn in here.turns_of(trainer)]
            if rank == 0:
                torch.save(found, "gradients.pt")
    """
    run_in_two_processes(program, cwd=tmp_path)
    whole = make()
    for (turn, step), found in zip(turns_of(whole), torch.load(tmp_path / "gradients.pt"), strict=True):
        assert relative(found, gradient(whole, turn, step, batch)) < 1e-5, turn


def weights_after(trainer: Trainer) -> Tensor:
    assert trainer.run()
    return torch.cat([p.detach().flatten() for _, network in trainer.networks.items() for p in network.parameters()])


@pytest.mark.parametrize("name", ["adam", "adadelta"])
def test_fused_optimisers_change_rounding_alone(make: Callable[..., Trainer], name: Any) -> None:
    rates = {f"joint_{network}": Rate(1e-3) for network in ("reconstruction", "segmentation")}
    settings = replace(
        SETTINGS, optimiser=OptimiserSettings(name=name, initialise=Rate(1e-3), segmentation=Rate(1e-3), **rates)
    )
    start = torch.cat([p.detach().flatten() for _, n in make().networks.items() for p in n.parameters()])
    after, expected = (
        weights_after(make(replace(settings, measures=MeasureSettings(fused=fused)))) for fused in (True, False)
    )
    assert (after - expected).norm() < 1e-3 * (expected - start).norm()


def test_the_layout_changes_rounding_alone(make: Callable[..., Trainer], batch: FaceBatch) -> None:
    usual, other = make(), make(replace(SETTINGS, measures=MeasureSettings(channels_last=False)))
    layouts = []
    for trainer in (usual, other):
        trainer.networks.segmentation.down[0][0].register_forward_hook(
            lambda _, inputs, __: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        )
    for turn, step in turns_of(usual):
        assert relative(gradient(other, turn, step, batch), gradient(usual, turn, step, batch)) < 1e-4, turn
    assert set(layouts[::2]) == {False}
    assert set(layouts[1::2]) == {True}


def test_bfloat16_has_nearly_the_same_gradient(make: Callable[..., Trainer], batch: FaceBatch) -> None:
    single, half = make(), make(replace(SETTINGS, precision="bfloat16"))
    for turn, step in turns_of(single):
        one, other = gradient(single, turn, step, batch), gradient(half, turn, step, batch)
        assert other.dtype == torch.float32
        assert float(torch.cosine_similarity(one, other, dim=0)) > 0.98, turn
        assert 0.9 < float(other.norm() / one.norm()) < 1.1, turn


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # an error here, where torch itself overlooks it
def test_compiled_networks_learn_the_same(
    make: Callable[..., Trainer], batch: FaceBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler of torch itself takes a minute; what is put in place is its front end."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: compile_(f, **{**options, "backend": "aot_eager"}))
    monkeypatch.setattr(
        torch.nn.Module,
        "compile",
        lambda self, **options: setattr(
            self, "_compiled_call_impl", compile_(self._call_impl, **{**options, "backend": "aot_eager"})
        ),
    )
    torch._dynamo.reset()
    plain, compiled = make(), make(replace(SETTINGS, measures=MeasureSettings(compile=True)))
    for turn, step in turns_of(plain):
        assert relative(gradient(compiled, turn, step, batch), gradient(plain, turn, step, batch)) < 1e-4, turn
    assert compiled.learner.compiled_graphs > 0


def test_nothing_is_recorded_where_nothing_is_learnt(
    make: Callable[..., Trainer], batch: FaceBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, reconstruction_weights=ReconstructionWeights(area=0.0), mask_gradient=False)
    trainer = make(settings)
    recorded: dict[str, bool] = {}
    networks = trainer.networks
    networks.reconstruction.register_forward_hook(
        lambda _, __, face: recorded.update(reconstruction=face.rotation.requires_grad)
    )
    networks.segmentation.up[0].register_forward_hook(
        lambda _, __, values: recorded.update(segmentation=values.requires_grad)
    )
    for turn in trainer.plan:
        trainer._begin(turn)
        recorded.clear()
        trainer.learner._gradients(turn, turn.start, batch)
        assert {name for name, is_recorded in recorded.items() if is_recorded} == {turn.network}, turn


def test_a_run_may_go_on_with_other_measures(make: Callable[..., Trainer], tmp_path: Path) -> None:
    make(BATCH_NORM, folder=tmp_path).run()
    checkpoint = load_checkpoint(tmp_path / "last.safetensors")
    assert checkpoint.header.machine["precision"] == "float32"
    assert checkpoint.header.machine["measures"] == "channels_last fused"
    other = MeasureSettings(channels_last=False, fused=False)
    make(replace(BATCH_NORM, measures=other, precision="bfloat16")).resume(checkpoint)
    with pytest.raises(FocusError, match=r"other settings \(measures.parts\)"):
        make(replace(BATCH_NORM, measures=MeasureSettings(parts=2))).resume(checkpoint)


def test_a_resumed_run_says_which_measures_are_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--stages.initialise", "2", "--stages.segmentation", "0", "--stages.joint", "0", "--data.validation", "0"]
    small = ["--batch-size", "2", "--image-size", "32", "--precision", "float32", *few]
    assert main(["train", "--out", str(tmp_path), *small]) == 0
    again = [*small, "--resume", "--precision", "bfloat16", "--measures.no-fused"]
    assert main(["train", "--out", str(tmp_path), *again]) == 0
    told = capsys.readouterr().err
    assert "measures channels_last fused before, channels_last now" in told
    assert "precision float32 before, bfloat16 now" in told


FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh", "lift_fresh_copy", "is_nonzero", "equal")
"""Reading, and constants made into tensors, which are copies from the memory of the processor."""


class Watch(TorchDispatchMode):
    """Which operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def without_numbers(trainer: Trainer, mode: FakeTensorMode) -> None:
    """Puts tensors that have shapes alone in place of all that an iteration uses."""
    modules = [trainer.model, trainer.objectives.features, *(network for _, network in trainer.networks.items())]
    for module in [one for whole in modules for one in whole.modules()]:  # type: ignore[union-attr]
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(mode.from_tensor(value.detach()))
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = mode.from_tensor(value)


@pytest.mark.parametrize("optimiser", ["adam", "adadelta"])
@pytest.mark.parametrize("method", ["focus", "oracle", "pretrained", "supervised"])
def test_no_iteration_reads_from_the_device(
    make: Callable[..., Trainer], batch: FaceBatch, method: Any, optimiser: Any
) -> None:
    """So it can be captured in a CUDA graph. Tensors without numbers fail where somebody reads one: `item`, `tolist`, a
    condition, `nonzero` and the like."""
    settings = replace(SETTINGS, method=method, optimiser=OptimiserSettings(name=optimiser, gradient_clip=1.0))
    # On the CPU, where the count of iterations is no tensor of the device, torch's Adadelta for all weights makes one.
    settings = replace(settings, measures=MeasureSettings(fused=optimiser == "adam"))
    trainer = make(replace(settings, network=replace(BATCH_NORM.network, segmentation=DROPOUT)), own=True)
    assert trainer.model.topology is not None  # built once, before
    seen: set[str] = set()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Watch() as watch:
        without_numbers(trainer, mode)
        fake = batch.map(mode.from_tensor)
        for turn in trainer.plan:
            trainer._begin(turn)
            trainer.learner.learn(turn, turn.start, fake)  # the first one finds memory for the optimiser
            watch.found.clear()
            assert trainer.objectives.constants(turn, turn.end - 1) is not None
            terms = trainer.learner.learn(turn, turn.end - 1, fake)
            assert all(type(value).__name__ == "FakeTensor" for value in terms.values())
            seen |= watch.found
    assert "convolution_backward" in seen  # backward passes are seen, too
    assert seen & set(FORBIDDEN) == set()


def test_photos_are_changed_without_waiting_for_the_device() -> None:
    rng = np.random.default_rng(0)
    changes = Changes.of([Change.draw(AugmentationSettings(shading=0.3), 32, rng) for _ in range(3)], 32)
    with FakeTensorMode() as mode, Watch() as watch:
        fake = replace(
            changes,
            backward=mode.from_tensor(changes.backward),
            curves=mode.from_tensor(changes.curves),
            shading=None,
        )
        found = fake.images(torch.zeros(3, 3, 40, 40, dtype=torch.uint8))
        assert found.shape == (3, 3, 32, 32)
    assert "gather" in watch.found
    assert watch.found & set(FORBIDDEN) == set()


def test_what_reads_is_found(batch: FaceBatch) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Watch() as watch:
        image = mode.from_tensor(batch.image)
        image.new_tensor(2.0)
        assert "lift_fresh" in watch.found
        for read in (lambda: float(image.sum()), lambda: image.nonzero().tolist(), lambda: bool(image.any())):
            with pytest.raises(Exception, match="aten"):
                read()


class Replayed:
    """In place of a graph."""

    def __init__(self, batch: FaceBatch, work: Any, device: torch.device) -> None:
        if device.index == 1:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        self.count = len(batch)

    def fits(self, batch: FaceBatch) -> bool:
        return len(batch) == self.count

    def replay(self, batch: FaceBatch) -> dict[str, Tensor]:
        return {"replayed": torch.ones(())}


def test_iterations_alike_are_replayed(batch: FaceBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focus.train.capture._Graph", Replayed)
    graphs = Graphs(torch.device("cuda", 0))

    def replayed(key: str, left: int = 100, faces: FaceBatch = batch, graphs: Graphs = graphs) -> bool:
        return "replayed" in graphs.run(key, faces, lambda _: {"run": torch.ones(())}, left=left)

    assert [replayed("a") for _ in range(CAPTURE_WARM_UP + 2)] == [False] * CAPTURE_WARM_UP + [True] * 2
    assert not replayed("a", faces=batch[:2], left=1)  # another shape
    assert replayed("a")
    assert [replayed("b", left=1) for _ in range(9)] == [False] * 9  # not worth it
    assert not replayed("a")  # the memory of its graph went when it was not at work
    graphs.forget()
    assert [replayed("a") for _ in range(CAPTURE_WARM_UP + 1)] == [False] * CAPTURE_WARM_UP + [True]
    refusing = Graphs(torch.device("cuda", 1))
    for _ in range(CAPTURE_WARM_UP):
        assert not replayed("a", graphs=refusing)
    with pytest.raises(FocusError, match=r"cannot be captured \(operation not permitted .*--measures.no-graph"):
        replayed("a", graphs=refusing)


@pytest.mark.parametrize("name", ["adam", "adadelta"])
@pytest.mark.parametrize("fused", [True, False])
def test_optimisers_of_graphs_have_their_numbers_on_the_card(
    make: Callable[..., Trainer], name: Any, fused: bool
) -> None:
    trainer = make(replace(SETTINGS, optimiser=OptimiserSettings(name=name), measures=MeasureSettings(fused=fused)))
    trainer._begin(trainer.plan[0])
    (group,) = trainer.optimisers["reconstruction"].param_groups
    assert not group["capturable"]
    trainer.learner._graphs = Graphs(torch.device("cpu"))
    trainer.learner.begin_stage(["reconstruction"])
    (group,) = trainer.optimisers["reconstruction"].param_groups
    assert group["capturable"]
    assert isinstance(group["lr"], Tensor)
    assert group["foreach"] or group.get("fused") or name == "adam"


def test_constants_say_when_iterations_are_alike(make: Callable[..., Trainer]) -> None:
    settings = replace(SETTINGS, robust=RobustSettings(plain=0.25, anneal=0.5), binary_ramp=2)
    trainer = make(
        replace(settings, stages=replace(settings.stages, initialise=8, joint=8, cycle=8, segmentation_in_cycle=6))
    )
    initialise, segmentation, masks, faces = trainer.plan

    def constants(turn: Turn) -> list[Any]:
        return [trainer.objectives.constants(turn, step) for step in range(turn.start, turn.end)]

    sigmas = constants(initialise)
    assert sigmas[0] == sigmas[1] == (None,)  # L_pixel
    assert len(set(sigmas[1:7])) == 6
    assert sigmas[6] == sigmas[7] == (pytest.approx(0.043),)
    assert len(set(constants(segmentation))) == 1
    assert constants(masks) == [(0.0,), (0.5,), *[(1.0,)] * 4]
    assert constants(faces) == [(), ()]
    patched = make(replace(settings, method="cutmix"))
    assert patched.objectives.constants(patched.plan[-1], patched.plan[-1].start) is None
