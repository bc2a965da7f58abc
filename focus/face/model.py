"""A 3D morphable model as a torch module: mean and linear bases of shape, expression and albedo."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from focus.errors import FocusError
from focus.isolation import own_state, trainable

if TYPE_CHECKING:
    from focus import ops

ExpressionPrior = Literal["normal", "unit_interval"]
LANDMARK_COUNT = 68
NOW_LANDMARK_COUNT = 7


class MorphableModel(torch.nn.Module):
    """shape = mean + identity basis * identity + expression basis * expression; likewise albedo. Float32 buffers.

    Args:
        mean_shape: ``[V, 3]`` mm; x to the image's right of a face that looks at the camera, y up, z out of the face.
        identity_basis: ``[Ki, V, 3]`` mm per unit coefficient; coefficients are standard normal.
        expression_basis: ``[Ke, V, 3]`` mm per unit coefficient; see `expression_prior`.
        mean_albedo: ``[V, 3]`` RGB in [0, 1].
        albedo_basis: ``[Ka, V, 3]`` RGB per unit coefficient; coefficients are standard normal.
        faces: ``[F, 3]`` int32, counterclockwise seen from outside.
        landmarks68: ``[68]`` int64, vertices of the iBUG landmarks (jaw from the image's left, brows, nose, eyes,
            mouth).
        landmarks7: ``[7]`` int64, vertices of the NoW challenge (eye corners from the image's left to right, nose base,
            mouth corners), or None.
        uv: ``[V, 2]`` in [0, 1], v up, or None.
        name: what the model is.
        licence: under what terms its data may be used.
        expression_prior: "normal", or "unit_interval" for blend shapes with weights in [0, 1].
        recipe: for a model that code builds, what built these arrays. Rounding differs between machines; the recipe
            does not, so `fingerprint` uses it in place of the numbers, for as long as they stay what they are here.
        notes: what the user should know of how the model was read.

    Raises:
        ValueError: shapes that do not fit together, or indices that name no vertex.
    """

    mean_shape: Tensor
    identity_basis: Tensor
    expression_basis: Tensor
    mean_albedo: Tensor
    albedo_basis: Tensor
    faces: Tensor
    landmarks68: Tensor
    landmarks7: Tensor | None
    uv: Tensor | None

    def __init__(
        self,
        *,
        mean_shape: Tensor,
        identity_basis: Tensor,
        expression_basis: Tensor,
        mean_albedo: Tensor,
        albedo_basis: Tensor,
        faces: Tensor,
        landmarks68: Tensor,
        landmarks7: Tensor | None = None,
        uv: Tensor | None = None,
        name: str = "unnamed",
        licence: str = "unknown",
        expression_prior: ExpressionPrior = "normal",
        recipe: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if expression_prior not in get_args(ExpressionPrior):
            raise ValueError(
                f"MorphableModel: expression_prior: expected one of {get_args(ExpressionPrior)}, "
                f"got {expression_prior!r}"
            )
        self.name = name
        self.licence = licence
        self.expression_prior: ExpressionPrior = expression_prior
        self.recipe = recipe
        self.notes = tuple(notes)
        for key, value in (
            ("mean_shape", mean_shape),
            ("identity_basis", identity_basis),
            ("expression_basis", expression_basis),
            ("mean_albedo", mean_albedo),
            ("albedo_basis", albedo_basis),
            ("uv", uv),
        ):
            self._keep(key, value, torch.float32)
        self._keep("faces", faces, torch.int32)
        self._keep("landmarks68", landmarks68, torch.int64)
        self._keep("landmarks7", landmarks7, torch.int64)
        self._topology: tuple[Tensor, int, ops.Topology] | None = None  # of which faces, in which version
        self._check()
        self._recipe_digest = None if recipe is None else self._digest_of_floats()

    def _keep(self, key: str, value: Tensor | None, dtype: torch.dtype) -> None:
        with own_state(grad=False):
            kept = None if value is None else trainable(value.detach()).to(dtype).contiguous()
        self.register_buffer(key, kept)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MorphableModel:
        # What `to`, `double` and the like end in: the arrays stay usable for training in inference mode too.
        with torch.inference_mode(False):
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: versions of tensors mean nothing there."""
        return {**self.__dict__, "_topology": None}

    def _check(self) -> None:
        """Raises `ValueError` where the arrays do not fit together."""
        count = self.mean_shape.shape[0] if self.mean_shape.dim() else 0
        expected: dict[str, tuple[int | None, ...]] = {
            "mean_shape": (count, 3),
            "identity_basis": (None, count, 3),
            "expression_basis": (None, count, 3),
            "mean_albedo": (count, 3),
            "albedo_basis": (None, count, 3),
            "faces": (None, 3),
            "landmarks68": (LANDMARK_COUNT,),
            "landmarks7": (NOW_LANDMARK_COUNT,),
            "uv": (count, 2),
        }
        for key, shape in expected.items():
            value = getattr(self, key)
            if value is None:
                continue
            got = tuple(value.shape)
            if len(got) != len(shape) or any(e is not None and e != g for e, g in zip(shape, got, strict=True)):
                wanted = ", ".join("any" if e is None else str(e) for e in shape)
                raise ValueError(f"MorphableModel {self.name!r}: {key}: expected shape [{wanted}], got {list(got)}")
            if value.is_floating_point():
                if not bool(torch.isfinite(value).all()):
                    raise ValueError(
                        f"MorphableModel {self.name!r}: {key}: expected finite numbers, got NaN or infinity"
                    )
            elif value.numel() and not (int(value.min()) >= 0 and int(value.max()) < count):
                raise ValueError(
                    f"MorphableModel {self.name!r}: {key}: expected vertex indices in [0, {count}), "
                    f"got {int(value.min())}..{int(value.max())}"
                )
        if count == 0:
            raise ValueError(f"MorphableModel {self.name!r}: mean_shape: expected at least one vertex, got none")

    @property
    def vertex_count(self) -> int:
        """V."""
        return self.mean_shape.shape[0]

    @property
    def identity_count(self) -> int:
        """Ki."""
        return self.identity_basis.shape[0]

    @property
    def expression_count(self) -> int:
        """Ke."""
        return self.expression_basis.shape[0]

    @property
    def albedo_count(self) -> int:
        """Ka."""
        return self.albedo_basis.shape[0]

    @property
    def topology(self) -> ops.Topology:
        """The checked faces with their vertex-to-face lists, on the model's device; built on first use, and anew where
        the faces have changed since.

        Not noticed are edits in place of faces on CUDA through ``faces.data``, which torch does not count, and those
        between two calls of a compiled function.
        """
        from focus import ops
        from focus.ops.topology import can_be_kept

        if self._topology is not None and _unchanged(self.faces, *self._topology):
            return self._topology[2]
        topology = ops.Topology(self.faces, self.vertex_count)
        if can_be_kept(topology.faces) and can_be_kept(self.faces):
            self._topology = self.faces, _version(self.faces), topology
        return topology

    def versions(self) -> tuple[tuple[Tensor | None, int], ...]:
        """The arrays as they are now, each with the count of its edits, for `has_changed`."""
        arrays = (getattr(self, key) for key in _ARRAYS)
        return tuple((value, 0 if value is None else _version(value)) for value in arrays)

    def has_changed(self, since: tuple[tuple[Tensor | None, int], ...]) -> bool:
        """Whether an array was replaced, moved or edited since `versions` were taken."""
        now = self.versions()
        return any(a is not b or i != j for (a, i), (b, j) in zip(now, since, strict=True))

    def neutral_shape(self, identity: Tensor) -> Tensor:
        """The face without expression: ``[B, Ki]`` to ``[B, V, 3]`` mm."""
        return self.mean_shape + _combine(identity, self.identity_basis, "identity")

    def shape(self, identity: Tensor, expression: Tensor) -> Tensor:
        """The face: ``[B, Ki]`` and ``[B, Ke]`` to ``[B, V, 3]`` mm."""
        return self.neutral_shape(identity) + _combine(expression, self.expression_basis, "expression")

    def albedo(self, coefficients: Tensor) -> Tensor:
        """Colours: ``[B, Ka]`` to ``[B, V, 3]`` RGB, not clamped to [0, 1]."""
        return self.mean_albedo + _combine(coefficients, self.albedo_basis, "albedo")

    def truncated(
        self, identity: int | None = None, expression: int | None = None, albedo: int | None = None
    ) -> MorphableModel:
        """The same model with the first components only; None keeps all. `FocusError` for counts out of range."""
        counts = {}
        for key, wanted, have in (
            ("identity", identity, self.identity_count),
            ("expression", expression, self.expression_count),
            ("albedo", albedo, self.albedo_count),
        ):
            counts[key] = have if wanted is None else component_count(f"{self.name}: {key}", wanted)
            if not 0 <= counts[key] <= have:
                raise FocusError(f"{self.name}: {key}: expected 0 to {have} components, got {wanted}")
        return self._replaced(
            identity_basis=self.identity_basis[: counts["identity"]],
            expression_basis=self.expression_basis[: counts["expression"]],
            albedo_basis=self.albedo_basis[: counts["albedo"]],
            recipe=self.valid_recipe,
        )

    def with_gaussian_process_albedo(self, components: int = 40) -> MorphableModel:
        """The same geometry with a synthetic albedo; see `focus.face.painted_albedo`.

        For models that come without colour (ICT-FaceKit, FLAME). Skin, brows, lips and eyes are painted round the 68
        landmarks, and the basis is a Gaussian process with skin tones first: no colour was measured on anybody.

        Args:
            components: Ka of the result.
        """
        from focus.face.painted_albedo import PAINT_VERSION, paint_albedo

        with own_state(grad=False):
            mean_albedo, albedo_basis = paint_albedo(self, components)
        return self._replaced(
            mean_albedo=mean_albedo,
            albedo_basis=albedo_basis,
            name=f"{self.name}, synthetic albedo",
            recipe=f"synthetic albedo {PAINT_VERSION} for {self.fingerprint()}",
        )

    def _replaced(self, **changes: Tensor | str | None) -> MorphableModel:
        """A model with some arguments changed; the others are shared. Other numbers need a recipe of their own."""
        arguments: dict[str, object] = {key: getattr(self, key) for key in (*_ARRAYS, *_TEXTS)}
        floats = any(isinstance(value, Tensor) and value.is_floating_point() for value in changes.values())
        arguments["recipe"] = None if floats else self.valid_recipe
        arguments.update(changes)
        return MorphableModel(**arguments)  # type: ignore[arg-type]

    @property
    def valid_recipe(self) -> str | None:
        """The recipe, if the numbers are still those that it built."""
        if self.recipe is None or self._digest_of_floats() != self._recipe_digest:
            return None
        return self.recipe

    def fingerprint(self) -> str:
        """SHA-256 in hexadecimal of what coefficients mean in this model; checkpoints store it.

        Hashes the bytes of all arrays or, of a model that code built and nobody changed since, its recipe and integer
        arrays with the number of components: the numbers of such a model differ in their last bits from machine to
        machine.
        """
        digest = hashlib.sha256()
        counts = [self.identity_count, self.expression_count, self.albedo_count]
        recipe = self.valid_recipe
        digest.update(json.dumps([recipe, self.expression_prior, counts]).encode())
        self._hash(digest, [key for key in _ARRAYS if recipe is None or key not in _FLOATS])
        return digest.hexdigest()

    def _digest_of_floats(self) -> bytes:
        digest = hashlib.sha256()
        self._hash(digest, _FLOATS)
        return digest.digest()

    def _hash(self, digest: hashlib._Hash, keys: Sequence[str]) -> None:
        for key in keys:
            value = getattr(self, key)
            if value is not None:
                value = value.detach().cpu().to(torch.float32 if key in _FLOATS else value.dtype).contiguous()
                digest.update(f"{key}{tuple(value.shape)}".encode())
                digest.update(value.numpy().data)

    def save(self, path: str | Path) -> None:
        """Writes our own format (safetensors with metadata), atomically; read it with `load`.

        Args:
            path: ends in ``.focusmodel`` or ``.safetensors``.
        """
        from focus.face.loaders import save_model

        save_model(self, Path(path))

    @staticmethod
    def load(path: str | Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
        """Reads a model file and recognises its format; see `focus.face.loaders.load_model`.

        Args:
            path: the file.
            landmarks68: vertices of the 68 iBUG landmarks, for models that do not say them (FLAME, Basel Face Model
                2009); replaces those of the file.

        Raises:
            FocusError: missing, damaged or unknown files; no landmarks; indices that name no vertex.

        Warns:
            FocusWarning: something in the file was put right, such as its unit of length; `notes` say it, too.
        """
        from focus.face.loaders import load_model

        with own_state(grad=False):
            return load_model(Path(path), landmarks68)

    @staticmethod
    def procedural(
        detail: Literal["small", "full"] = "full",
        identity: int | None = None,
        expression: int | None = None,
        albedo: int | None = None,
    ) -> MorphableModel:
        """The face that ships as code; see `focus.face.procedural`.

        Args:
            detail: "full" has about 30,000 vertices; "small" samples the same functions at about 2,500.
            identity, expression, albedo: number of components; None takes all.
        """
        from focus.face.procedural import build_procedural_model

        if detail not in ("small", "full"):
            raise FocusError(f"procedural: detail: expected 'small' or 'full', got {detail!r}")
        with own_state(grad=False):
            return build_procedural_model(detail).truncated(identity, expression, albedo)

    def extra_repr(self) -> str:
        return (
            f"{self.name!r}, vertices={self.vertex_count}, faces={self.faces.shape[0]}, "
            f"identity={self.identity_count}, expression={self.expression_count}, albedo={self.albedo_count}"
        )


def _version(tensor: Tensor) -> int:
    """Which grows with every edit in place; torch does not count those of tensors made in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


def _unchanged(faces: Tensor, known: Tensor, version: int, topology: ops.Topology) -> bool:
    if torch.compiler.is_compiling():
        return known is faces
    if known is not faces or topology.faces.device != faces.device or _version(faces) != version:
        return False
    # On CUDA to compare them would be to wait for them.
    return (faces.is_cuda and not faces.is_inference()) or torch.equal(topology.faces, faces.int())


_ARRAYS = (
    "mean_shape",
    "identity_basis",
    "expression_basis",
    "mean_albedo",
    "albedo_basis",
    "faces",
    "landmarks68",
    "landmarks7",
    "uv",
)
_FLOATS = ("mean_shape", "identity_basis", "expression_basis", "mean_albedo", "albedo_basis", "uv")
_TEXTS = ("name", "licence", "expression_prior", "recipe", "notes")


def component_count(what: str, value: object) -> int:
    """A number of components, also one of numpy's; `FocusError` for all else than whole numbers from 0."""
    try:
        count = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = -1
    if count < 0:
        raise FocusError(f"{what}: expected 0 or more components, a whole number, got {value!r}")
    return count


def _combine(coefficients: Tensor, basis: Tensor, name: str) -> Tensor:
    """``[B, K]`` times ``[K, V, 3]``."""
    if coefficients.dim() != 2 or coefficients.shape[1] != basis.shape[0]:
        raise ValueError(f"{name} coefficients: expected shape [B, {basis.shape[0]}], got {list(coefficients.shape)}")
    return torch.einsum("bk,kvc->bvc", coefficients, basis)
