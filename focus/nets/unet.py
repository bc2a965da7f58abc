"""The segmentation network: render and photo in, visible-face mask out (U-Net, Ronneberger et al. 2015)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from focus.nets.resnet import Normalisation, normalisation_layer
from focus.nets.settings import NetworkSettings, SegmentationSettings
from focus.phases import marked, phase


def _convolution(inputs: int, outputs: int, kind: Normalisation) -> list[nn.Module]:
    # The bias changes nothing before a normalisation; the paper's count of parameters includes it.
    return [nn.Conv2d(inputs, outputs, 3, padding=1), normalisation_layer(outputs, kind), nn.ReLU(inplace=True)]


def _double_convolution(inputs: int, outputs: int, kind: Normalisation) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, outputs, kind), *_convolution(outputs, outputs, kind))


class SegmentationNetwork(nn.Module):
    """Says where the photo shows the face that was rendered.

    Encoder levels of two 3x3 convolutions, each with normalisation and ReLU, 2x2 max pooling between them, dropout
    after the two deepest; decoder levels of nearest upsampling and a 3x3 convolution, concatenation with the encoder's
    level, two 3x3 convolutions; a 1x1 convolution; sigmoid(gain * x). With the default settings 34,528,769 parameters,
    as the paper states.

    Images of any size work: sides that do not divide by 2**(levels - 1) are extended by repeating the last row or
    column, and the mask is cut back.
    """

    in_bfloat16 = False
    """Whether it computes in bfloat16, as under autocast; weights and results stay as they are."""
    channels_last = True
    """Whether it computes in this layout; see `ResNet`."""
    _compiled: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self, settings: SegmentationSettings) -> None:
        super().__init__()
        self.settings = settings
        filters, kind = settings.filters, settings.normalisation
        self.multiple = 2 ** (len(filters) - 1)
        inputs = (6, *filters[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(
                _double_convolution(before, after, kind),
                nn.Dropout(settings.dropout if level >= len(filters) - 2 else 0.0),
            )
            for level, (before, after) in enumerate(zip(inputs, filters, strict=True))
        )
        steps = list(zip(filters[:0:-1], filters[-2::-1], strict=True))  # (from, to) filters, from the deepest level up
        self.up = nn.ModuleList(nn.Sequential(*_convolution(before, after, kind)) for before, after in steps)
        self.merge = nn.ModuleList(_double_convolution(2 * after, after, kind) for _, after in steps)
        self.head = nn.Conv2d(filters[0], 1, 1)

    def forward(self, rendered: Tensor, target: Tensor, face: Tensor | None = None) -> Tensor:
        """The mask ``[B, 1, H, W]`` in (0, 1), sigmoid(`logits`): 1 where the rendered face is seen."""
        return torch.sigmoid(self.logits(rendered, target, face))

    def logits(self, rendered: Tensor, target: Tensor, face: Tensor | None = None) -> Tensor:
        """The log-odds of the mask, the gain included.

        Args:
            rendered: ``[B, 3, H, W]`` RGB, the reconstruction, 0 outside the face.
            target: ``[B, 3, H, W]`` RGB in [0, 1], the photo.
            face: ``[B, 1, H, W]`` the mask of the rendered face; needed by the setting `paste`, else unused.

        Returns:
            ``[B, 1, H, W]``, at least float32, under autocast too.

        Raises:
            ValueError: shapes differ, or `face` is missing.
        """
        if rendered.dim() != 4 or rendered.shape[1] != 3 or rendered.shape != target.shape:
            raise ValueError(
                "SegmentationNetwork: rendered, target: expected the same shape [B, 3, H, W], got "
                f"{list(rendered.shape)} and {list(target.shape)}"
            )
        if self.settings.paste:
            if face is None or face.shape != (rendered.shape[0], 1, *rendered.shape[2:]):
                got = "none" if face is None else list(face.shape)
                raise ValueError(
                    f"SegmentationNetwork: face: settings.paste needs the rendered face's mask [B, 1, H, W], got {got}"
                )
            rendered = face * rendered + (1 - face) * target
        rendered = marked(rendered, "losses, backward")
        half = torch.autocast(target.device.type, torch.bfloat16) if self.in_bfloat16 else contextlib.nullcontext()
        with phase("segmentation network"), half:
            logits = (self._compiled or self._logits)(rendered, target)
            logits = self.settings.gain * logits.to(torch.promote_types(logits.dtype, torch.float32))
        return marked(logits, "segmentation network, backward")

    def compile_layers(self, **options: Any) -> None:
        """From now on the layers are compiled, with options of `torch.compile`; copies are not."""
        self._compiled = torch.compile(self._logits, **options)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name != "_compiled"}

    def _logits(self, rendered: Tensor, target: Tensor) -> Tensor:
        height, width = rendered.shape[2:]
        x = torch.cat((rendered, target), dim=1)
        x = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last) if self.channels_last else x.contiguous()
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat((skips.pop(), up(F.interpolate(x, scale_factor=2.0))), dim=1))
        logits: Tensor = self.head(x)[..., :height, :width]
        return logits


def build_segmentation_network(settings: NetworkSettings) -> SegmentationNetwork:
    """The segmentation network of `settings`."""
    return SegmentationNetwork(settings.segmentation)
