"""The batch that every source of faces hands to training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from focus.data.changes import Changes
from focus.data.lessons import Lessons
from focus.face import FaceParameters

T = TypeVar("T")


@dataclass
class FaceBatch:
    """B aligned faces, and what is known about them. Fields that a source does not know are None."""

    image: Tensor
    """[B, 3, S, S] float32, RGB in [0, 1]; before `changes` are made, [B, 3, T, T] uint8."""
    landmarks: Tensor
    """[B, 68, 2] pixels of the crop, as a detector gives them (synthetic: disturbed, strongly under occluders)."""
    landmark_weights: Tensor
    """[B, 68], 1 = known, 0 = ignore."""
    visible_mask: Tensor | None = None
    """[B, 1, S, S] {0, 1}: the face, less what is in front of it."""
    face_mask: Tensor | None = None
    """[B, 1, S, S] {0, 1}: the whole face as the model renders it, hidden part included."""
    unoccluded: Tensor | None = None
    """[B, 3, S, S]: the face as the model renders it, nothing in front, no pigment, no noise; valid in `face_mask`."""
    parameters: FaceParameters | None = None
    neutral_vertices: Tensor | None = None
    """[B, V, 3] mm, model space, without expression."""
    vertices: Tensor | None = None
    """[B, V, 3] mm, model space, with expression."""
    true_landmarks: Tensor | None = None
    """[B, 68, 2] pixels: the projected model landmarks, undisturbed."""
    lessons: Lessons | None = None
    """What a teacher says of photos: no truth."""
    changes: Changes | None = None
    """What is yet to be done to `image`, which shows T >= S pixels meanwhile; everything else is of the changed one."""
    occluder: list[str] = field(default_factory=list)
    """Kind of the occluder of each face, several joined with "+", "none" where there is none; empty when unknown."""
    names: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.image.shape[0]

    def tensors(self) -> list[Tensor]:
        """All of them, in one order."""
        return _tensors(self)

    def map(self, function: Callable[[Tensor], Tensor]) -> FaceBatch:
        """The batch with other tensors in place of each."""
        return mapped(self, function)

    def changed(self) -> FaceBatch:
        """The batch with its changes made, on the device that it is on."""
        if self.changes is None:
            return self
        return replace(self, image=self.changes.images(self.image), changes=None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FaceBatch:
        """The batch on another device."""
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> FaceBatch:
        """Some of the faces: a slice, a list or an integer tensor of indices."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, dtype=torch.int64, device=self.image.device).reshape(-1)
        chosen = range(len(self))[index] if isinstance(index, slice) else index.tolist()
        return replace(
            self.map(lambda value: value[index]),
            occluder=[self.occluder[i] for i in chosen] if self.occluder else [],
            names=[self.names[i] for i in chosen] if self.names else [],
        )

    @staticmethod
    def cat(batches: Sequence[FaceBatch]) -> FaceBatch:
        """Joins batches of one image size; a field that any of them lacks is None in the result."""
        if not batches:
            raise ValueError("FaceBatch.cat: expected at least one batch, got none")
        return replace(
            _joined(batches),
            occluder=[kind for batch in batches for kind in batch.occluder] if all(b.occluder for b in batches) else [],
            names=[name for batch in batches for name in batch.names] if all(b.names for b in batches) else [],
        )


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a dataclass, and in those within it, in the order of the fields."""
    if isinstance(value, Tensor):
        return [value]
    if not is_dataclass(value):
        return []
    return [tensor for item in fields(value) for tensor in _tensors(getattr(value, item.name))]


def mapped(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """A copy of a dataclass, or a tuple of some, with other tensors."""
    if isinstance(value, Tensor):
        return function(value)  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(mapped(part, function) for part in value)  # type: ignore[return-value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    return replace(value, **{item.name: mapped(getattr(value, item.name), function) for item in fields(value)})


def _joined(values: Sequence[T]) -> T:
    """Dataclasses of one kind as one: tensors joined, what any of them lacks None, all else that of the first."""
    parts = {item.name: [getattr(value, item.name) for value in values] for item in fields(values[0])}  # type: ignore[arg-type]
    joined: dict[str, Any] = {}
    for name, found in parts.items():
        if any(part is None for part in found):
            joined[name] = None
        elif isinstance(found[0], Tensor):
            joined[name] = torch.cat(found)
        else:
            joined[name] = _joined(found) if is_dataclass(found[0]) else found[0]
    return type(values[0])(**joined)
