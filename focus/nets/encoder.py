"""The reconstruction network: photo in, `FaceParameters` out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focus.errors import FocusError
from focus.face.lighting import AMBIENT_COEFFICIENT, HARMONIC_COUNT
from focus.face.parameters import FaceParameters
from focus.nets.resnet import ResNet
from focus.nets.settings import EncoderSettings, NetworkSettings
from focus.phases import marked, phase

if TYPE_CHECKING:
    from focus.face.model import MorphableModel


class ReconstructionNetwork(nn.Module):
    """A residual network whose outputs are cut into the parameters of a face.

    The outputs are, in this order, identity | expression | albedo | rotation 3, translation 3 | lighting 27 (red's nine
    harmonics first); each slice is multiplied by its scale, components beyond those in use are zero, and the ambient
    light is added to the first harmonic of each colour. The output layer starts at zero, so that training starts at the
    mean face in the middle of the image.

    Args:
        settings: shapes and scales.
        identity_count: number of identity components of the face model; the slice is no wider. So for the next two.
        expression_count: number of expression components.
        albedo_count: number of albedo components.
    """

    in_bfloat16 = False
    """Whether the trunk computes in bfloat16, as under autocast; weights and results stay as they are."""
    input_mean: Tensor
    input_deviation: Tensor
    scale: Tensor
    offset: Tensor

    def __init__(
        self, settings: EncoderSettings, *, identity_count: int, expression_count: int, albedo_count: int
    ) -> None:
        super().__init__()
        self.settings = settings
        self.component_counts = (identity_count, expression_count, albedo_count)
        limits = (settings.identity_count, settings.expression_count, settings.albedo_count)
        used = (settings.identity_used, settings.expression_used, settings.albedo_used)
        self.slice_widths = tuple(min(pair) for pair in zip(self.component_counts, limits, strict=True))
        self.used_counts = tuple(min(pair) for pair in zip(self.slice_widths, used, strict=True))
        needed = sum(self.slice_widths) + 6 + 3 * HARMONIC_COUNT
        outputs = needed if settings.output_width is None else settings.output_width
        if outputs < needed:
            raise FocusError(
                f"ReconstructionNetwork: output_width: expected at least {needed} for {self.slice_widths} components, "
                f"pose and light, got {outputs}"
            )
        self.trunk = ResNet(
            block=settings.block,
            blocks=settings.blocks,
            widths=settings.widths,
            strides=settings.strides,
            stem_width=settings.stem_width,
            stem_kernel=settings.stem_kernel,
            stem_pool=settings.stem_pool,
            pool_size=settings.pool_size,
            normalisation=settings.normalisation,
            frozen_normalisation=settings.frozen_normalisation,
            outputs=outputs,
        )
        scales = (settings.identity_scale, settings.expression_scale, settings.albedo_scale)
        scale = [value for value, width in zip(scales, self.slice_widths, strict=True) for _ in range(width)]
        scale += [settings.rotation_scale] * 3 + list(settings.translation_scale)
        scale += [settings.lighting_scale] * (3 * HARMONIC_COUNT)
        offset = torch.zeros(needed)
        offset[-3 * HARMONIC_COUNT :: HARMONIC_COUNT] = AMBIENT_COEFFICIENT
        # Constants of the settings, not weights: they stay out of the state dict.
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("input_mean", torch.tensor(settings.input_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("input_deviation", torch.tensor(settings.input_deviation).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> FaceParameters:
        """Estimates the faces.

        Args:
            images: ``[B, 3, H, W]`` RGB in [0, 1], aligned as in training.

        Returns:
            `FaceParameters` of batch B with as many components as the face model has; at least float32, under autocast
            too.

        Raises:
            ValueError: `images` is not floating point of shape ``[B, 3, H, W]``.
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                "ReconstructionNetwork: images: expected floating point [B, 3, H, W], got "
                f"{images.dtype} {list(images.shape)}"
            )
        half = torch.autocast(images.device.type, torch.bfloat16) if self.in_bfloat16 else contextlib.nullcontext()
        with phase("encoder"), half:
            raw = self.trunk((images - self.input_mean) / self.input_deviation)
            raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        return self.decode(marked(raw, "encoder, backward"))

    @property
    def channels_last(self) -> bool:
        """Whether it computes in this layout; see `ResNet`."""
        return self.trunk.channels_last

    @channels_last.setter
    def channels_last(self, value: bool) -> None:
        self.trunk.channels_last = value

    def compile_layers(self, **options: Any) -> None:
        """From now on the trunk is compiled, with options of `torch.compile`; copies are not."""
        self.trunk.compile(**options)

    def decode(self, raw: Tensor) -> FaceParameters:
        """Cuts and scales the outputs ``[B, outputs]`` of the trunk."""
        values = raw[:, : len(self.scale)] * self.scale + self.offset
        widths = [*self.slice_widths, 3, 3, 3 * HARMONIC_COUNT]
        *components, rotation, translation, lighting = torch.split(values, widths, dim=1)
        identity, expression, albedo = (
            F.pad(part[:, :used], (0, count - used))
            for part, used, count in zip(components, self.used_counts, self.component_counts, strict=True)
        )
        return FaceParameters(
            identity=identity,
            expression=expression,
            albedo=albedo,
            rotation=rotation,
            translation=translation,
            lighting=lighting.reshape(-1, 3, HARMONIC_COUNT),
        )


def build_reconstruction_network(settings: NetworkSettings, model: MorphableModel) -> ReconstructionNetwork:
    """The reconstruction network of `settings` for a face model."""
    return ReconstructionNetwork(
        settings.encoder,
        identity_count=model.identity_count,
        expression_count=model.expression_count,
        albedo_count=model.albedo_count,
    )
