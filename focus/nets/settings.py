"""Shapes and scales of the two networks, and the presets `paper`, `official` and `small`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from focus.conform import conform
from focus.errors import FocusError
from focus.nets.resnet import Block, Normalisation

Preset = Literal["paper", "official", "small", "photos"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class EncoderSettings:
    """The reconstruction network. The defaults are the paper's: ResNet-50, 25,557,032 parameters."""

    block: Block = "bottleneck"
    """Kind of residual block."""
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks per stage."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Width per stage; a bottleneck puts out 4 times as many channels."""
    strides: tuple[int, ...] = (1, 2, 2, 2)
    """Stride per stage."""
    stem_width: int = 64
    """Channels of the first convolution."""
    stem_kernel: int = 7
    """Side of the first convolution, which has stride 2."""
    stem_pool: bool = True
    """Whether a 3x3 max pool of stride 2 follows it."""
    pool_size: int = 1
    """Side of the grid of averaged features that the output layer sees."""
    normalisation: Normalisation = "batch"
    """BatchNorm (pretrained weights, large batches) or GroupNorm (any batch, the same in training and test)."""
    frozen_normalisation: bool = False
    """Keep BatchNorm on its stored statistics in training."""
    output_width: int | None = 1000
    """Width of the output layer; outputs beyond the 6 slices are unused. None: exactly as wide as needed."""
    identity_count: int = 199
    """Width of the identity slice, unless the face model has fewer components; so for the next two."""
    expression_count: int = 100
    """Width of the expression slice."""
    albedo_count: int = 199
    """Width of the albedo slice."""
    identity_used: int = 80
    """Components beyond this many are zero (official code); so for the next two."""
    expression_used: int = 64
    """Expression components in use."""
    albedo_used: int = 80
    """Albedo components in use."""
    identity_scale: float = 1.0
    """Coefficient per unit of output. The scales set how fast each quantity learns; so for all that follow."""
    expression_scale: float = 1.0
    """Coefficient per unit of output."""
    albedo_scale: float = 3.0
    """Coefficient per unit of output (official code)."""
    rotation_scale: float = 0.3
    """Radians per unit of output (official code)."""
    translation_scale: Triple = (1.0, 1.0, 0.005)
    """Millimetres in x, y and z per unit of output (official code: the depth hardly moves)."""
    lighting_scale: float = 1.0
    """Lighting coefficient per unit of output."""
    input_mean: Triple = (0.485, 0.456, 0.406)
    """Subtracted from the image, RGB: what torchvision's ImageNet weights expect."""
    input_deviation: Triple = (0.229, 0.224, 0.225)
    """The image is then divided by this."""

    def __post_init__(self) -> None:
        conform(self, "network.encoder")
        for name in ("identity", "expression", "albedo"):
            for kind in ("count", "used"):
                value = getattr(self, f"{name}_{kind}")
                if value < 0:
                    raise FocusError(f"EncoderSettings.{name}_{kind}: expected a number >= 0, got {value}")
        for name in ("blocks", "widths", "strides", "stem_width", "stem_kernel", "pool_size"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
                raise FocusError(f"EncoderSettings.{name}: expected numbers >= 1, got {value}")
        if not 0 < len(self.blocks) == len(self.widths) == len(self.strides):
            raise FocusError(
                "EncoderSettings: expected as many blocks as widths and strides, one for each stage, got "
                f"{self.blocks}, {self.widths}, {self.strides}"
            )
        if min(self.input_deviation) <= 0:
            raise FocusError(f"EncoderSettings.input_deviation: expected positive numbers, got {self.input_deviation}")


@dataclass(frozen=True)
class SegmentationSettings:
    """The segmentation network. The defaults are the paper's: 34,528,769 parameters."""

    filters: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Filters per level, from the image's resolution down; each further level halves the resolution."""
    dropout: float = 0.5
    """Dropout after the two deepest levels of the encoder."""
    normalisation: Normalisation = "batch"
    """As in `EncoderSettings`."""
    gain: float = 5.0
    """The mask is sigmoid(gain * output of the last convolution)."""
    paste: bool = False
    """Paste the render onto the photo outside the face, as the authors' 2023 release does, instead of onto black."""

    def __post_init__(self) -> None:
        conform(self, "network.segmentation")
        if len(self.filters) < 2 or min(self.filters) < 1:
            raise FocusError(
                f"SegmentationSettings.filters: expected at least two positive numbers, got {self.filters}"
            )
        if not 0 <= self.dropout < 1:
            raise FocusError(f"SegmentationSettings.dropout: expected a number in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class NetworkSettings:
    """Both networks."""

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    """The reconstruction network."""
    segmentation: SegmentationSettings = field(default_factory=SegmentationSettings)
    """The segmentation network."""

    @classmethod
    def preset(cls, name: Preset) -> NetworkSettings:
        """The networks of the paper, of the authors' released code, or small ones for the CPU: for synthetic faces of
        64 pixels, or for photos of 112.
        """
        if name == "paper":
            return cls()
        if name == "official":
            # The released code feeds [0, 1] to weights trained on normalised images.
            return cls(encoder=EncoderSettings(input_mean=(0.0, 0.0, 0.0), input_deviation=(1.0, 1.0, 1.0)))
        if name == "small":
            return _SMALL
        if name == "photos":
            return _PHOTOS
        raise FocusError(f"NetworkSettings.preset: expected 'paper', 'official', 'small' or 'photos', got {name!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkSettings:
        """Undoes `dataclasses.asdict`, also after a round trip through JSON. Raises `FocusError` for unknown names."""
        unknown = sorted(set(values) - {"encoder", "segmentation"})
        if unknown:
            raise FocusError(
                f"NetworkSettings: expected the settings encoder and segmentation, got {', '.join(unknown)}"
            )
        return cls(
            encoder=EncoderSettings(**_arguments(EncoderSettings, values.get("encoder", {}))),
            segmentation=SegmentationSettings(**_arguments(SegmentationSettings, values.get("segmentation", {}))),
        )


def _arguments(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise FocusError(f"{kind.__name__}: unknown settings {', '.join(unknown)}; expected some of {', '.join(known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


# Chosen by trials at 64 pixels, batch 16, one core. Encoder: 28 million multiply-adds, 50 ms forward and backward.
# Its output layer sees a 4x4 grid of features: an average over the whole image loses the places that pose needs.
# GroupNorm learned pose and shape slightly better than BatchNorm there, at the same speed. In the U-Net, which judges a
# pixel by absolute differences of colour, BatchNorm found occluders far better (IoU 0.78 against 0.69).
_SMALL = NetworkSettings(
    encoder=EncoderSettings(
        block="basic",
        blocks=(1, 1, 1),
        widths=(48, 96, 192),
        strides=(1, 2, 2),
        stem_width=32,
        stem_kernel=5,
        pool_size=4,
        normalisation="group",
        output_width=None,
        translation_scale=(10.0, 10.0, 40.0),
        input_mean=(0.5, 0.5, 0.5),
        input_deviation=(0.25, 0.25, 0.25),
    ),
    segmentation=SegmentationSettings(filters=(16, 32, 48, 64), dropout=0.0),
)

# The same at 112 pixels, one level deeper: 1.5 and 2.2 million parameters, 7 MB in half precision.
_PHOTOS = NetworkSettings(
    encoder=replace(_SMALL.encoder, blocks=(1, 1, 1, 1), widths=(40, 80, 128, 192), strides=(1, 2, 2, 2)),
    segmentation=SegmentationSettings(filters=(16, 32, 64, 128, 256), dropout=0.0),
)
