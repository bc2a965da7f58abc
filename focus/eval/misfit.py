"""The misfit prior (FOCUS-MP): what a method gets wrong about every face, learnt from faces whose shape is known."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from focus import limits
from focus._version import __version__
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.shape import fit_similarity
from focus.face import FaceParameters, MorphableModel
from focus.files import read_input, write_files
from focus.sealed import DamagedError, open_tensors, seal_tensors

FORMAT = 2
"""Of the files that are written. Format 1, without a checksum, is read, too."""

PRIOR_SUFFIX = "-MP"
"""Added to the name of a method whose misfit prior is taken off its shapes."""

ESTIMATION_SEED_OFFSET = 2**42
"""Of the faces that a prior is estimated from: none of them is a test face, whatever the seeds."""


@dataclass(frozen=True)
class MisfitPrior:
    """One offset for each vertex of a face model, the mean of reconstructed minus true neutral shape (Li et al., CVPR
    2023, supplement).
    """

    offsets: Tensor
    """``[V, 3]`` mm, float32, model space; subtracted from a reconstruction."""
    model_name: str
    """Of the face model."""
    model_fingerprint: str
    """`MorphableModel.fingerprint`."""
    faces: int
    """Number of faces that it is the mean of."""
    seed: int
    """Of these faces."""
    source: str
    """The method that it belongs to, in words."""

    def apply(self, vertices: Tensor) -> Tensor:
        """Shapes ``[B, V, 3]`` mm in model space without the misfit. Expressions move with it: it is of the neutral.

        Offsets were found on reconstructions laid on their true faces and are taken off where the model has them: a few
        per cent of size, and a degree of rotation, change an offset by that much of itself.
        """
        if vertices.dim() != 3 or vertices.shape[1:] != self.offsets.shape:
            raise ValueError(
                f"MisfitPrior.apply: vertices: expected [B, {len(self.offsets)}, 3], got {list(vertices.shape)}"
            )
        return vertices - self.offsets.to(vertices)

    def check_model(self, model: MorphableModel) -> None:
        """Raises `FocusError` if it was estimated with another face model."""
        if model.fingerprint() != self.model_fingerprint:
            raise FocusError(
                f"misfit prior: estimated with the face model {self.model_name!r} ({self.model_fingerprint[:12]}), got "
                f"{model.name!r} ({model.fingerprint()[:12]}), whose vertices are others; estimate it for this one"
            )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a safetensors file, whole or not at all.

        Raises:
            FocusError: the file system refused.
        """
        path = Path(path)
        header = {name: value for name, value in asdict(self).items() if name != "offsets"}
        header |= {"format": FORMAT, "version": __version__}
        content = seal_tensors({"offsets": self.offsets.detach().float().cpu().contiguous()}, "focus_misfit", header)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_files({path: content})
        except OSError as error:
            raise FocusError(f"misfit prior: {path} cannot be written: {error.strerror or error}") from error
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MisfitPrior:
        """Reads a file of `save`.

        Raises:
            FocusError: no such file, damaged, something else, or a value that makes no sense.
        """
        path = Path(path)
        if not path.exists():
            raise FocusError(f"misfit prior: expected a file, found none at {path}")
        try:
            header, tensors = open_tensors(read_input(path, limits.WEIGHTS_FILE), "focus_misfit")
            offsets, found = tensors.pop("offsets"), header.pop("format")
            version, checksum = header.pop("version"), header.pop("checksum", None)
            if type(found) is not int or found < 1:
                raise DamagedError(f"format: expected a whole number >= 1, got {found!r}")
            if found > FORMAT:
                raise FocusError(f"misfit prior: {path} was written by focus {version}; update this one")
            if found > 1 and not isinstance(checksum, str):
                raise DamagedError("it has no checksum")
            for name, kind in _HEADER.items():
                value = header[name]
                low = int(name == "faces")
                if type(value) is not kind or (isinstance(value, int) and value < low):
                    expected = "a text" if kind is str else f"a whole number >= {low}"
                    raise DamagedError(f"{name}: expected {expected}, got {value!r}")
            if tensors or set(header) != set(_HEADER):
                raise DamagedError(f"unknown: {', '.join(sorted({*tensors, *header} - set(_HEADER)))}")
        except (DamagedError, KeyError) as error:
            raise FocusError(
                f"misfit prior: {path} cannot be read ({error}): damaged, or no file of focus evaluate misfit"
            ) from error
        if (
            offsets.dim() != 2
            or offsets.shape[1] != 3
            or offsets.dtype != torch.float32
            or not bool(torch.isfinite(offsets).all())
        ):
            raise FocusError(
                f"misfit prior: {path}: expected finite offsets [V, 3] of float32, got {list(offsets.shape)}, "
                f"{offsets.dtype}"
            )
        return cls(offsets=offsets, **header)


_HEADER = {"model_name": str, "model_fingerprint": str, "faces": int, "seed": int, "source": str}


@torch.no_grad()
def estimate_misfit(
    reconstruct: Callable[[Tensor], FaceParameters],
    faces: SyntheticFaces,
    count: int,
    *,
    source: str,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> MisfitPrior:
    """The mean misfit over faces 0 to `count` - 1, each with an occluder or not as its set says.

    Every reconstruction is first laid on its true face by the best similarity. What is left is form; size and place,
    which one photo cannot tell, differ from face to face by far more than form does and would be noise in the mean.

    Args:
        reconstruct: the method, in evaluation mode, on `device`.
        faces: with the model that the method reconstructs with; a set that no test face comes from.
        count: number of faces.
        source: the method in words, kept in the result.
        batch_size: pictures at a time.
        device: where the method is.
        progress: called with (faces done, faces in all).
    """
    if count < 1:
        raise FocusError(f"misfit prior: expected at least one face, got {count}")
    model = faces.model
    total = torch.zeros(model.vertex_count, 3, dtype=torch.float64, device="cpu")
    for start in range(0, count, batch_size):
        batch = faces.batch(start, min(batch_size, count - start))
        parameters = reconstruct(batch.image.to(device)).to("cpu")
        true = batch.neutral_vertices
        if true is None:
            raise ValueError("estimate_misfit: expected faces whose neutral shape is known")
        found = model.neutral_shape(parameters.identity)
        total += (fit_similarity(found, true).apply(found) - true).sum(dim=0)
        if progress is not None:
            progress(min(start + batch_size, count), count)
    return MisfitPrior((total / count).float(), model.name, model.fingerprint(), count, faces.seed, source)
