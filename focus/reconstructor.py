"""A trained network that turns photos into reconstructions."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import losses
from focus.data.align import Alignment
from focus.data.skin import skin_mask
from focus.eval.misfit import MisfitPrior
from focus.face import MorphableModel, Renderer, Rendering
from focus.fit.crop import OpenPhoto, open_photo
from focus.fit.region import crop_model, face_region
from focus.reconstruction import Reconstruction
from focus.train.capture import Replays
from focus.train.checkpoint import Trained, load_trained
from focus.train.distributed import uses_bfloat16
from focus.train.inference import directly, segmented
from focus.train.methods import METHODS


class Reconstructor:
    """The networks of a checkpoint, ready for use. Deterministic; without gradients.

    The mask is that of the segmentation network where the run trained one, and else what its method looks at: the whole
    rendered face (`mofa`, `cutmix`, `cutout`), the colour of skin (`skin`), or the inliers of the outlier-robust rule.
    As in a fit, it ends at the jaw and the hairline (`focus.fit.region`): it says nothing of scalp and neck.

    The procedural face has its full level of detail in results, also where the networks were trained with few vertices;
    not with a misfit prior, which is that of the few.

    Args:
        trained: networks, settings and face model; `load` reads them from a file.
        misfit: taken off every shape; of the same face model, or `FocusError`.
        precision: of the networks. bfloat16 takes less time where the processor or the card has it, and masks then
            differ by a thousandth or so; auto: bfloat16 there.
        graph: on a card, calls of the networks are captured in CUDA graphs after three with batches of one size: a
            launch in place of hundreds. No card has run it yet.
    """

    def __init__(
        self,
        trained: Trained,
        misfit: MisfitPrior | None = None,
        *,
        precision: Literal["float32", "bfloat16", "auto"] = "float32",
        graph: bool = False,
    ) -> None:
        if misfit is not None:
            misfit.check_model(trained.model)
        self._misfit = None if misfit is None else misfit.offsets.to(trained.model.mean_shape)
        self.settings = trained.settings
        # A misfit is that of vertices, so that these stay.
        self.model = trained.model if misfit is not None else self.settings.face.detailed(trained.model)
        self._networks, self._network_model = trained.networks, trained.model
        half = uses_bfloat16(precision, trained.model.mean_shape.device)
        self._networks.reconstruction.in_bfloat16 = self._networks.segmentation.in_bfloat16 = half
        self._renderer = Renderer(self._network_model, self.settings.image_size)
        self._region = face_region(self.model)
        self._region_renderer = Renderer(crop_model(self.model, self._region), self.settings.image_size)
        self._segments = trained.segments
        device = trained.model.mean_shape.device
        self._call = Replays(device) if graph and device.type == "cuda" else directly

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike[str],
        *,
        model: MorphableModel | None = None,
        misfit: MisfitPrior | None = None,
        device: torch.device | str = "cpu",
        precision: Literal["float32", "bfloat16", "auto"] = "float32",
        graph: bool = False,
    ) -> Reconstructor:
        """Reads a checkpoint of `focus train`, or an exported one.

        Args:
            checkpoint: the file.
            model: the face model, of which the first components are used, as in training; None: the one that the
                checkpoint names.
            misfit: a misfit prior of this checkpoint.
            device: where the networks run.
            precision, graph: see `Reconstructor`.

        Raises:
            FocusError: no usable checkpoint, or another face model than the one it was trained with.
        """
        return cls(load_trained(checkpoint, model=model, device=device), misfit, precision=precision, graph=graph)

    @property
    def image_size(self) -> int:
        """S, the side in pixels of the crops that the networks take."""
        return self.settings.image_size

    def __call__(self, images: Tensor) -> list[Reconstruction]:
        """Reconstructs crops. Pixels of "the photo" in the results are those of the crop.

        Args:
            images: ``[B, 3, S, S]`` RGB, uint8 or floating point in [0, 1], aligned as `focus.data.align` does it.

        Raises:
            ValueError, TypeError: another shape or dtype, or not finite.
        """
        size = self.image_size
        if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
            got = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"Reconstructor: images: expected a uint8 or floating point tensor, got {got}")
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(f"Reconstructor: images: expected shape [B, 3, {size}, {size}], got {list(images.shape)}")
        crops = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        if not bool(torch.isfinite(crops).all()):
            raise ValueError("Reconstructor: images: expected finite numbers in [0, 1], got NaN or infinity")
        whole = Alignment(scale=1.0, center=((size - 1) / 2, (size - 1) / 2), image_size=size)
        bytes_rgb = (crops.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return self._reconstruct(crops, [whole] * len(crops), list(bytes_rgb), [f"face_{i}" for i in range(len(crops))])

    @property
    def batch_size(self) -> int:
        """Photos that are best given at once: a processor has nothing to gain from several."""
        return 16 if self.model.mean_shape.device.type == "cuda" else 1

    def open(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        *,
        name: str | None = None,
    ) -> OpenPhoto:
        """Reads a photo and cuts it to the face, for `photos`.

        Args, errors: as `focus.fit_photo`.
        """
        return open_photo(image, landmarks, self.image_size, name)

    def photos(self, photos: Sequence[OpenPhoto]) -> list[Reconstruction]:
        """Reconstructs the faces of photos that are open, as one batch."""
        if not photos:
            return []
        for photo in photos:
            if photo.crop.shape[-1] != self.image_size:
                raise ValueError(
                    f"Reconstructor.photos: {photo.name}: expected a crop of {self.image_size} pixels, as `open` makes "
                    f"it, got {photo.crop.shape[-1]}"
                )
        crops = torch.stack([photo.crop for photo in photos])
        names = [photo.name for photo in photos]
        return self._reconstruct(crops, [photo.alignment for photo in photos], [photo.photo for photo in photos], names)

    def photo(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        *,
        name: str | None = None,
        notify: Callable[[], None] = lambda: None,
    ) -> Reconstruction:
        """Reconstructs the face in a photo; its landmarks place the crop, and nothing else.

        Args, errors: as `focus.fit_photo`; `notify` is called once, at the end.
        """
        (result,) = self.photos([self.open(image, landmarks, name=name)])
        notify()
        return result

    @torch.no_grad()
    def _reconstruct(
        self, crops: Tensor, alignments: list[Alignment], photos: list[NDArray[np.uint8]], names: list[str]
    ) -> list[Reconstruction]:
        crops = crops.to(self.model.mean_shape.device)
        if not len(crops):
            return []
        if self._segments:
            parameters, _, logits = segmented(
                self._networks,
                self._network_model,
                self._renderer,
                crops,
                relight=self.settings.relight,
                call=self._call,
            )
            drawn = self._region_renderer(parameters)
            mask = drawn.mask * torch.sigmoid(logits)
        else:
            parameters = self._call("encoder", self._networks.reconstruction, crops)
            drawn = self._region_renderer(parameters)
            mask = self._mask(crops, drawn)
        return [
            Reconstruction(
                model=self.model,
                parameters=parameters[i],
                image=crops[i],
                rendering=drawn.image[i],
                face=drawn.mask[i],
                mask=mask[i],
                alignment=alignments[i],
                photo=photos[i],
                name=names[i],
                region=self._region,
                misfit=self._misfit,
            )
            for i in range(len(crops))
        ]

    def _mask(self, crops: Tensor, rendering: Rendering) -> Tensor:
        """By a rule: ``[B, 1, S, S]``, 0 outside of the rendered face."""
        kind = METHODS[self.settings.method].mask
        if kind == "whole":
            return rendering.mask
        if kind == "skin":
            return rendering.mask * skin_mask(crops)
        robust = self.settings.robust
        return losses.robust(crops, rendering.image, rendering.mask, sigma=robust.sigma, cutoff=robust.cutoff)[1]
