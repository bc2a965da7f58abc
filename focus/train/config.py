"""Every setting of a training run, and the presets `paper`, `official` and `small`.

One `Settings` describes a run; each checkpoint holds it as JSON. Iterations of a network are its own, those of the
other one do not count: so methods that train no segmentation network see the same rates and the same faces.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from focus.conform import conform, hints
from focus.data.patches import PatchSettings
from focus.data.synthetic import SyntheticSettings
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.losses import ROBUST_CUTOFF, ROBUST_SIGMA, ReconstructionWeights, SegmentationWeights, TeachingWeights
from focus.nets import NetworkSettings
from focus.train.methods import METHODS, Method, require_true_masks
from focus.train.ranges import check_ranges

Preset = Literal["paper", "official", "small", "photos"]
Stage = Literal["initialise", "segmentation", "again", "joint", "adapt"]
Teacher = Literal["none", "fit", "truth"]
_LARGEST_SCALE = 1e6


@dataclass(frozen=True)
class FaceSettings:
    """The morphable model."""

    source: str = "procedural"
    """`procedural`, or the path of a model (our own format, Basel Face Model, arrays, ICT-FaceKit)."""
    detail: Literal["small", "full"] = "full"
    """Level of detail of the procedural model."""
    identity: int | None = None
    """Number of identity components; None: all of them. So for the next two."""
    expression: int | None = None
    """Number of expression components."""
    albedo: int | None = None
    """Number of albedo components."""

    def build(self, model: MorphableModel | None = None) -> MorphableModel:
        """The model with these numbers of components.

        Args:
            model: in place of that of `source`; it keeps what it has where that is less.

        Raises:
            FocusError: a file that cannot be read, or has too few components.
        """
        counts = (self.identity, self.expression, self.albedo)
        if model is not None:
            have = (model.identity_count, model.expression_count, model.albedo_count)
            return model.truncated(*(n if k is None else min(k, n) for k, n in zip(counts, have, strict=True)))
        if self.source == "procedural":
            return MorphableModel.procedural(self.detail, *counts)
        return MorphableModel.load(self.source).truncated(*counts)

    def detailed(self, model: MorphableModel) -> MorphableModel:
        """The same model with the full level of detail, if it is the procedural one: its coefficients mean the same
        face, its brows and lids are sharper, and its landmarks are where they belong and not at the nearest of few
        vertices.

        Args:
            model: as `build` gives it.
        """
        if self.source != "procedural" or self.detail == "full":
            return model
        counts = (model.identity_count, model.expression_count, model.albedo_count)
        return MorphableModel.procedural("full", *counts).to(model.mean_shape)

    def whole(self, model: MorphableModel | None = None) -> MorphableModel:
        """The model with all of its components, and of the procedural one the full level of detail.

        Args:
            model: in place of that of `source`.
        """
        if model is not None:
            return model
        return MorphableModel.procedural() if self.source == "procedural" else MorphableModel.load(self.source)


@dataclass(frozen=True)
class DataSettings:
    """The faces to learn from: synthetic ones, or the photos of a folder."""

    photos: Path | None = None
    """Folder of photos; None: synthetic faces."""
    landmarks: Path | None = None
    """CSV file with the landmarks of the photos."""
    shards: tuple[str, ...] = ()
    """Folders or addresses of shards (focus prepare --shards) in place of photos and landmarks."""
    adapt_photos: Path | None = None
    """Folder of the photos of the stage `adapt`; None: the same faces as before."""
    adapt_landmarks: Path | None = None
    """CSV file with their landmarks."""
    validation: int = 32
    """Number of faces held out for validation; of photos at most a fifth."""
    augment: bool = True
    """Small random changes of place, size and colour of the photos, mirroring, and what is drawn before their faces."""
    crops_gigabytes: float = 32.0
    """What is kept in the folder of the run, decoded or fetched once: crops of photos (0: none), or shards of an
    address while they are needed."""
    synthetic_fraction: float = 0.0
    """Share of synthetic faces in batches of photos with lessons: few photos do not show what faces may be."""
    pasted_fraction: float = 0.25
    """Share of the photos before whose face something is drawn, where a teacher has said where the face is."""
    pasted_coverage: tuple[float, float] = (0.05, 0.6)
    """From which part of the face to which is hidden by it."""
    distinct: int | None = None
    """Different synthetic faces; they are kept and come again. None: fresh ones in every batch."""
    synthetic: SyntheticSettings = field(default_factory=SyntheticSettings)
    """The synthetic world."""
    patches: PatchSettings = field(default_factory=PatchSettings)
    """What the methods `cutmix` and `cutout` lay over the faces."""


@dataclass(frozen=True)
class StageSettings:
    """Iterations of each stage; 0 leaves a stage out."""

    initialise: int = 300_000
    """Reconstruction network alone, outlier-robust loss, or the faces of the teacher."""
    segmentation: int = 30_000
    """Segmentation network alone, on the masks of the outlier-robust rule, or of the teacher."""
    joint: int = 200_000
    """Both in turns, iterations of both together."""
    adapt: int = 0
    """As `joint`, afterwards, on other photos."""
    cycle: int = 30_000
    """Iterations of one cycle of `joint` and `adapt`."""
    segmentation_in_cycle: int = 5_000
    """Of these, the first ones train the segmentation network, the others the reconstruction network."""
    again: int = 0
    """With the teacher `fit`, after `segmentation`: the same, on the masks of second fits, which have heard the
    network."""


@dataclass(frozen=True)
class RobustSettings:
    """The outlier-robust loss of the first stage, and the masks that it makes."""

    plain: float = 0.0
    """First part of the stage `initialise`, as a fraction of it: L_pixel over the whole rendered face in its place."""
    anneal: float = 0.0
    """Next part, in which sigma shrinks geometrically from `sigma_start` to `sigma`."""
    sigma_start: float = 0.15
    """Standard deviation of a colour difference, in [0, 1], at the start of the anneal."""
    sigma: float = ROBUST_SIGMA
    """Its final value, which also makes the masks for the segmentation network and for the method `pretrained`."""
    cutoff: float = ROBUST_CUTOFF
    """A pixel farther off than this many sigma is an outlier."""


@dataclass(frozen=True)
class Rate:
    """A learning rate over the iterations of one network in one stage."""

    start: float = 0.1
    """At the first iteration."""
    decay: float = 0.99
    """Factor every `decay_every` iterations."""
    decay_every: int = 5_000
    """See `decay`."""
    cosine_end: float | None = None
    """If given, no steps, but half a cosine from `start` down to this fraction of it at the end of the stage."""
    warm_up: int = 0
    """Iterations in which the rate rises linearly from zero."""

    def at(self, iteration: int, total: int) -> float:
        """The rate of iteration 0 .. total - 1."""
        rate = self.start
        if self.cosine_end is None:
            rate *= self.decay ** (iteration // self.decay_every)
        else:
            rate *= self.cosine_end + (1 - self.cosine_end) * (1 + math.cos(math.pi * iteration / max(total, 1))) / 2
        return rate * min(1.0, (iteration + 1) / self.warm_up) if self.warm_up else rate


@dataclass(frozen=True)
class OptimiserSettings:
    """How the networks learn. The state of the optimiser starts afresh in each stage."""

    name: Literal["adadelta", "adam"] = "adadelta"
    """Optimiser of both networks, with torch's default constants."""
    initialise: Rate = field(default_factory=Rate)
    """Reconstruction network, stage `initialise`."""
    segmentation: Rate = field(default_factory=lambda: Rate(0.03))
    """Segmentation network, stage `segmentation`."""
    again: Rate = field(default_factory=lambda: Rate(0.03))
    """Segmentation network, stage `again`."""
    joint_reconstruction: Rate = field(default_factory=lambda: Rate(0.1 * 0.99**60))
    """Reconstruction network, stages `joint` and `adapt`: goes on where 300,000 iterations ended."""
    joint_segmentation: Rate = field(default_factory=lambda: Rate(0.06 * 0.1 * 0.99**60))
    """Segmentation network, stages `joint` and `adapt`: 0.06 of the above."""
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters together; None: no limit."""


@dataclass(frozen=True)
class MeasureSettings:
    """What makes training fast, or small. It changes results by rounding alone: a run may go on with other measures."""

    channels_last: bool = True
    """Networks compute with the channels of a pixel side by side."""
    fused: bool = True
    """A few calls for all weights in the optimiser, in place of several for each."""
    compile: bool = False
    """Networks are compiled (`torch.compile`), once for training and once for use: minutes before the first iteration.
    Needs a C++ compiler on the CPU."""
    graph: bool = False
    """On a card iterations are captured in CUDA graphs, where one process trains and nothing in them depends on values
    of the card: not while masks are learnt with `relight`, and not with patches. Off, since no card has run it yet."""
    parts: int = 1
    """Parts of a batch that are gone through one after the other, for less memory: the gradient is that of the whole.
    BatchNorm sees each part alone."""


@dataclass(frozen=True)
class GuardSettings:
    """When a run is stopped because its masks say nothing any more."""

    window: int = 500
    """Iterations over which the mean mask inside the rendered face is taken."""
    lowest: float = 0.005
    """Less than this: all is called hidden."""
    highest: float = 0.995
    """More than this: all is called face. 1 switches the check off, for photos that hide nothing."""


@dataclass(frozen=True)
class LogSettings:
    """What is written, and how often, in iterations of both networks."""

    every: int = 50
    """Line of losses in `log.jsonl`."""
    checkpoint_every: int = 1_000
    """Checkpoint; one more at the end of each turn of a network."""
    checkpoints: int = 0
    """Checkpoints that stay, by the number of their iteration, beside the last, the best by validation loss, and those
    of the ends of stages."""
    validate_every: int = 1_000
    """Validation losses and picture; once more at the end of each turn of a network."""
    pictures: int = 6
    """Faces in a validation picture; 0: no pictures."""
    tensorboard: Literal["auto", "on", "off"] = "auto"
    """TensorBoard curves; auto: where it is installed."""
    seconds_per_line: float = 30.0
    """Where the output is no terminal: seconds between two lines of progress."""


@dataclass(frozen=True)
class Settings:
    """A training run. The defaults are those of the paper; see `Settings.preset`."""

    method: Method = "focus"
    """What tells the reconstruction network which pixels to trust, after the common initialisation. focus: the
    segmentation network; mofa: nothing, the whole rendered face counts; pretrained: the outlier-robust rule; oracle:
    the true masks; skin: a detector of the colour of skin, as in Deep3D; supervised: the segmentation network, which
    learns from true masks; cutmix, cutout: nothing, but the network sees faces with patches over them."""
    teacher: Teacher = "none"
    """What the networks learn from before they teach each other. none: the outlier-robust rule, the paper's way; fit:
    the masks and faces of `focus fit` of the photos; truth: those of the synthetic faces."""
    seed: int = 0
    """Seed of the initial weights, the faces, their order and dropout."""
    image_size: int = 224
    """Side of the images, pixels."""
    batch_size: int = 12
    """Faces per iteration, over all processes."""
    start: Path | None = None
    """Checkpoint whose weights the run starts from, for example an exported one."""
    imagenet: Path | None = None
    """File with torchvision's ImageNet weights for the trunk of the reconstruction network."""
    arcface: Path | None = None
    """File with the ArcFace weights for the recognition features; None: the filter bank, which needs none."""
    face: FaceSettings = field(default_factory=FaceSettings)
    """The morphable model."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """Both networks."""
    data: DataSettings = field(default_factory=DataSettings)
    """The faces to learn from."""
    stages: StageSettings = field(default_factory=StageSettings)
    """How long."""
    robust: RobustSettings = field(default_factory=RobustSettings)
    """The outlier-robust loss."""
    reconstruction_weights: ReconstructionWeights = field(default_factory=ReconstructionWeights)
    """Weights of L_R."""
    segmentation_weights: SegmentationWeights = field(default_factory=SegmentationWeights)
    """Weights of L_S."""
    teaching_weights: TeachingWeights = field(default_factory=TeachingWeights)
    """Weights of L_T, by which the reconstruction network learns the faces of a teacher."""
    anchor: float = 0.0
    """Weight of what a teacher says, beside L_S and L_R, in the stage `joint`: what the losses of the paper say of few
    photos is not enough to hold the masks."""
    keep: float = 0.0
    """Share of the segmentation network that the run began with (`start`) in the one that it ends with, a mean of the
    weights of both (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022): what it knew of faces that
    the run does not have is not lost. Without `start` nothing is kept."""
    relight: bool = False
    """Solve for the light by least squares where the masks say that the face is seen, and ask for the masks again: of
    photos unlike those it has learnt from, the reconstruction network knows the light less well than the shape."""
    disturbance: float = 0.0
    """How far the faces are changed at random on which the segmentation network learns given masks; 1: then they are
    about as wrong as those of photos that the reconstruction network has not learnt from."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """In which the networks compute while they learn. bfloat16 takes half the time where the processor or the card has
    it; auto: it does."""
    binary_ramp: int = 0
    """Iterations of the segmentation network in the joint stage over which the weight of L_binary rises from 0: at its
    full weight from the start, it freezes the first masks."""
    mask_gradient: bool = False
    """Let L_pixel, too, reach the reconstruction network through the predicted mask, not L_area alone."""
    antialias: bool = False
    """Blend the outline of the face in L_R, which then has a gradient with respect to its place."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """How the networks learn."""
    measures: MeasureSettings = field(default_factory=MeasureSettings)
    """What makes training fast."""
    guard: GuardSettings = field(default_factory=GuardSettings)
    """When a run is stopped."""
    log: LogSettings = field(default_factory=LogSettings)
    """What is written."""
    device: str = "auto"
    """`cpu`, `cuda`, or auto: CUDA where there is a card."""
    threads: int = 0
    """Threads of torch on the CPU; 0: as many as torch thinks right."""
    workers: int = 0
    """Processes that draw the next faces meanwhile (each with its own copy of cached photos); 0: none."""

    def __post_init__(self) -> None:
        conform(self, "")
        check_ranges(self)
        stages = self.stages
        _check(
            "stages.segmentation_in_cycle",
            stages.segmentation_in_cycle,
            0 < stages.segmentation_in_cycle < stages.cycle,
            f"between 1 and cycle - 1 = {stages.cycle - 1}, so that both networks get their turn",
        )
        _check(
            "stages", "more", sum(getattr(stages, item.name) for item in fields(stages)) < 1 << 31, "below 2**31 in all"
        )
        robust = self.robust
        _check("robust.sigma", robust.sigma, robust.sigma <= robust.sigma_start, "0 < sigma <= sigma_start")
        parts = (robust.plain, robust.anneal)
        _check("robust.plain, robust.anneal", parts, sum(parts) <= 1, "fractions of together at most 1")
        window = self.segmentation_weights.neighbor_window
        _check("segmentation_weights.neighbor_window", window, window % 2 == 1, "an odd number in 1 to 15")
        values = 3 * self.batch_size * self.image_size**2
        _check("batch_size * image_size**2 * 3", values, values < 1 << 31, "below 2**31, so that indices fit")
        low, high = self.data.pasted_coverage
        _check("data.pasted_coverage", self.data.pasted_coverage, low < high, "0 <= from < to <= 1")
        data = self.data
        for photos, landmarks in (("photos", "landmarks"), ("adapt_photos", "adapt_landmarks")):
            if (getattr(data, photos) is None) != (getattr(data, landmarks) is None):
                raise FocusError(f"settings: data.{photos} and data.{landmarks} belong together: give both or neither")
        if data.shards and data.photos is not None:
            raise FocusError("settings: data.shards: stands in place of data.photos: give one of them")
        require_true_masks(self.method, given=data.photos is None and not data.shards and data.adapt_photos is None)
        if METHODS[self.method].patches == "cutmix":
            _check("batch_size", self.batch_size, self.batch_size >= 2, "at least 2, for method 'cutmix'")

    @classmethod
    def preset(cls, name: Preset) -> Settings:
        """The paper's figures, those of the authors' released code where it differs, a run of synthetic faces for two
        CPU cores, or one of photos.
        """
        if name == "paper":
            return cls(precision="auto")
        if name == "official":
            start = 0.1 * 0.99**60 * 0.8
            return cls(
                precision="auto",
                network=NetworkSettings.preset("official"),
                segmentation_weights=SegmentationWeights.official(),
                optimiser=OptimiserSettings(
                    joint_reconstruction=Rate(start), joint_segmentation=Rate(0.06 * start, decay=0.95)
                ),
            )
        from focus.train import presets

        if name == "small":
            return presets.small()
        if name == "photos":
            return presets.photos()
        raise FocusError(f"settings: preset: expected 'paper', 'official', 'small' or 'photos', got {name!r}")

    def scaled(self, factor: float) -> Settings:
        """The same run, shorter or longer: all iterations (stages, cycle, decays, ramps) times `factor`."""
        _check("scale", factor, 0 < factor <= _LARGEST_SCALE, f"a finite number > 0, at most {_LARGEST_SCALE:g}")

        def times(count: int) -> int:
            return max(1, round(count * factor)) if count else 0

        def rate(value: Rate) -> Rate:
            return replace(value, decay_every=times(value.decay_every), warm_up=times(value.warm_up))

        counts = {item.name: times(getattr(self.stages, item.name)) for item in fields(self.stages)}
        for name in ("cycle", "joint", "adapt"):  # both networks get their turn
            if counts[name]:
                counts[name] = max(counts[name], counts["segmentation_in_cycle"] + 1)
        return replace(
            self,
            stages=StageSettings(**counts),
            binary_ramp=times(self.binary_ramp),
            optimiser=replace(
                self.optimiser,
                initialise=rate(self.optimiser.initialise),
                segmentation=rate(self.optimiser.segmentation),
                again=rate(self.optimiser.again),
                joint_reconstruction=rate(self.optimiser.joint_reconstruction),
                joint_segmentation=rate(self.optimiser.joint_segmentation),
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts of JSON values; undone by `from_dict`."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Undoes `to_dict`; absent names take their defaults. Raises `FocusError` for unknown names and wrong types."""
        settings: Settings = _decode(cls, values, "settings")
        return settings


def _check(name: str, value: object, good: bool, expected: str) -> None:
    if not good:
        raise FocusError(f"settings: {name}: expected {expected}, got {value}")


def _decode(kind: Any, value: Any, name: str) -> Any:
    """JSON values to the annotated type `kind`."""
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise FocusError(f"{name}: expected a group of settings, got {value!r}")
        unknown = sorted(set(value) - {item.name for item in fields(kind)})
        if unknown:
            raise FocusError(f"{name}: unknown: {', '.join(unknown)}; were they written by a newer version of FOCUS?")
        arguments = {key: _decode(hints(kind)[key], part, f"{name}.{key}") for key, part in value.items()}
        return kind(**arguments)  # type: ignore[operator]
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(part for part in choices if part is not type(None))
        return None if value is None else _decode(inner, value, name)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = choices[:1] * len(value) if choices[1:] == (...,) else choices
        if len(kinds) == len(value):
            return tuple(_decode(part, item, name) for part, item in zip(kinds, value, strict=True))
    elif origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return value
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e300 else math.inf  # which is refused by name
    elif kind is Path and isinstance(value, str):
        return Path(value)
    elif origin is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise FocusError(f"{name}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
