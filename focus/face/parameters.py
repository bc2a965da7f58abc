"""What a reconstruction is made of: the coefficients of a face, its pose and its lighting."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from focus.face.lighting import ambient_lighting

if TYPE_CHECKING:
    from focus.face.model import MorphableModel


@dataclass
class FaceParameters:
    """A batch of faces in the coordinates of a `MorphableModel`. Every field is floating point, `[B, ...]`.

    Attributes:
        identity: ``[B, Ki]``, coefficients of the identity basis, standard normal a priori.
        expression: ``[B, Ke]``, coefficients of the expression basis, as `MorphableModel.expression_prior` says.
        albedo: ``[B, Ka]``, coefficients of the albedo basis, standard normal a priori.
        rotation: ``[B, 3]``, the angles (a, b, c) in radians of `focus.face.camera.rotation_matrix`.
        translation: ``[B, 3]``, millimetres, camera axes, added to (0, 0, 1000).
        lighting: ``[B, 3, 9]``, spherical-harmonics coefficients of red, green and blue.
    """

    identity: Tensor
    expression: Tensor
    albedo: Tensor
    rotation: Tensor
    translation: Tensor
    lighting: Tensor

    def __post_init__(self) -> None:
        batch_size = self.identity.shape[0] if self.identity.dim() else 0
        expected = {
            "identity": (batch_size, None),
            "expression": (batch_size, None),
            "albedo": (batch_size, None),
            "rotation": (batch_size, 3),
            "translation": (batch_size, 3),
            "lighting": (batch_size, 3, 9),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            got = tuple(value.shape)
            if len(got) != len(shape) or any(e is not None and e != g for e, g in zip(shape, got, strict=True)):
                wanted = ", ".join("K" if e is None else str(e) for e in shape)
                raise ValueError(
                    f"FaceParameters.{name}: expected shape [{wanted}] (the batch size is that of identity), "
                    f"got {list(got)}"
                )

    @classmethod
    def mean(
        cls, model: MorphableModel, batch_size: int = 1, device: torch.device | str | None = None
    ) -> FaceParameters:
        """The mean face of `model`, frontal, in the centre of the image, under ambient light.

        Args:
            model: gives the number of coefficients, the dtype and, without `device`, the device.
            batch_size: number of faces.
            device: where the parameters live.
        """
        like = model.mean_shape

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch_size, *shape, dtype=like.dtype, device=device or like.device)

        return cls(
            identity=zeros(model.identity_count),
            expression=zeros(model.expression_count),
            albedo=zeros(model.albedo_count),
            rotation=zeros(3),
            translation=zeros(3),
            lighting=ambient_lighting(batch_size, dtype=like.dtype, device=device or like.device),
        )

    @staticmethod
    def cat(parts: Sequence[FaceParameters]) -> FaceParameters:
        """Joins batches along the first dimension. Raises `ValueError` for an empty sequence."""
        if not parts:
            raise ValueError("FaceParameters.cat: expected at least one element, got an empty sequence")
        return FaceParameters(
            **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(FaceParameters)}
        )

    @property
    def batch_size(self) -> int:
        """B."""
        return self.identity.shape[0]

    def __len__(self) -> int:
        return self.batch_size

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every field, in the order of their declaration."""
        for f in fields(self):
            yield f.name, getattr(self, f.name)

    def map(self, function: Callable[[Tensor], Tensor]) -> FaceParameters:
        """Applies `function` to every field."""
        return FaceParameters(**{name: function(value) for name, value in self.items()})

    def to(self, *args: object, **kwargs: object) -> FaceParameters:
        """`torch.Tensor.to` for every field."""
        return self.map(lambda value: value.to(*args, **kwargs))  # type: ignore[call-overload]

    def detach(self) -> FaceParameters:
        """Every field detached from its graph."""
        return self.map(torch.Tensor.detach)

    def clone(self) -> FaceParameters:
        """A copy of every field."""
        return self.map(torch.Tensor.clone)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> FaceParameters:
        """Selects faces; an integer keeps the batch dimension (a batch of one)."""
        if isinstance(index, (int, np.integer)):
            index = int(index)
            if not -self.batch_size <= index < self.batch_size:
                raise IndexError(f"FaceParameters: index {index} is out of range for a batch of {self.batch_size}")
            index = [index]
        selection = index
        return self.map(lambda value: value[selection])
