"""Face models of others: Basel Face Model 2009, 2017 and 2019, FLAME, ICT-FaceKit, and plain array files.

None of them comes with FOCUS; get them from their authors and accept their licences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import limits
from focus.arrays import ArrayArchive
from focus.errors import FocusError
from focus.face.frames import frame_of, outward_faces
from focus.face.hdf5 import read_hdf5
from focus.face.ict_facekit import read_ict_facekit
from focus.face.matlab import read_matlab
from focus.face.model import LANDMARK_COUNT, ExpressionPrior, MorphableModel

Array = NDArray[Any]

# Where the tip of the nose lies in our models: the origin is on the line between the pupils' depth and the mouth, so
# that a turned face stays in the middle of the image and its depth is about 1000 mm at translation zero.
NOSE_TIP = (0.0, 2.0, 27.0)
_BASEL_CENTRE = (0.0, 0.0, 100.0)
_BASEL_2017_VERTICES = 53149
# Vertices of model2017-1_bfm_nomouth.h5 (the official code of FOCUS).
_BASEL_2017_LANDMARKS68 = (
    16678, 16817, 16480, 16254, 32170, 32866, 33302, 33598, 33765, 33949, 34239, 34693, 35398, 27717, 27536, 27137,
    27249, 27998, 28747, 29133, 29336, 29503, 30188, 30352, 30557, 30947, 31682, 8122, 8137, 8147, 8152, 6627, 7219,
    8165, 9107, 9695, 2475, 4275, 5050, 5829, 4802, 3900, 10382, 11280, 12053, 14123, 12323, 11419, 5137, 5897, 7467,
    8175, 8883, 10450, 11110, 9372, 8666, 8194, 7722, 7012, 5524, 7358, 8184, 9010, 10852, 8659, 8187, 7715,
)  # fmt: skip
_BASEL_2017_LANDMARKS7 = (2735, 6088, 10263, 13746, 8165, 5394, 11116)


def refuse_pickle(path: Path) -> NoReturn:
    """Explains why a pickle is not read, and what to do."""
    raise FocusError(
        f"{path}: this is a Python pickle, which can run any code when it is read, so FOCUS does not. "
        "Convert it once, where you trust it: "
        "import pickle, numpy; m = pickle.load(open(FILE, 'rb'), encoding='latin1'); "
        "numpy.savez('flame.npz', v_template=m['v_template'], shapedirs=numpy.array(m['shapedirs']), f=m['f'])"
    )


def _tensor(
    path: Path, name: str, array: Array, shape: tuple[int | None, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """A tensor of the expected shape, or `FocusError` that names the array."""
    if array.dtype.kind not in "fiu":
        raise FocusError(f"{path}: {name}: expected numbers, got {array.dtype}")
    got = array.shape
    if len(got) != len(shape) or any(e is not None and e != g for e, g in zip(shape, got, strict=True)):
        wanted = ", ".join("any" if e is None else str(e) for e in shape)
        raise FocusError(f"{path}: {name}: expected shape [{wanted}], got {list(got)}")
    # Also from the other byte order, and from types that torch does not know. What is too large becomes infinite, or
    # another whole number, and is refused.
    with np.errstate(all="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32 if dtype.is_floating_point else np.int64)
    tensor = torch.from_numpy(converted if converted.flags.writeable else converted.copy()).to(dtype)
    if not dtype.is_floating_point and not np.array_equal(tensor.numpy(), array):
        raise FocusError(f"{path}: {name}: expected whole numbers within {dtype}, got others")
    return tensor


def checked_landmarks(path: Path, landmarks68: Sequence[int] | None, vertex_count: int, why: str = "") -> Tensor:
    """``[68]`` vertices; `FocusError`, for `why`, where there are none, or where they are no vertices."""
    if landmarks68 is None:
        raise FocusError(
            f"{path}: {why} Give the {LANDMARK_COUNT} iBUG vertex indices as landmarks68 of MorphableModel.load, or "
            f"once, in a text file: focus model {path} --landmarks68 INDICES.txt --save NEW.focusmodel; then use the "
            "new file."
        )
    given = np.asarray(landmarks68)
    if given.dtype.kind not in "fiu":
        raise FocusError(f"{path}: landmarks68: expected vertex indices, whole numbers, got {given.dtype}")
    landmarks = _tensor(path, "landmarks68", given, (LANDMARK_COUNT,), torch.int64)
    if not 0 <= int(landmarks.min()) <= int(landmarks.max()) < vertex_count:
        raise FocusError(
            f"{path}: landmarks68: expected vertex indices in [0, {vertex_count}), "
            f"got {int(landmarks.min())}..{int(landmarks.max())}"
        )
    return landmarks


def _centred(mean: Tensor, landmarks68: Tensor) -> Tensor:
    """Shifted so that the tip of the nose (landmark 30) is at `NOSE_TIP`, x by the middle of all landmarks' sides."""
    tip = mean[landmarks68[30]].clone()
    tip[0] = (mean[landmarks68[0], 0] + mean[landmarks68[16], 0]) / 2
    return mean - tip + mean.new_tensor(NOSE_TIP)


# --- Basel Face Model -------------------------------------------------------------------------------------------------


def load_basel_hdf5(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """Basel Face Model 2017 or 2019 (Gerig et al. 2018), HDF5 as its authors distribute it; needs h5py.

    HDF5 is read in a process of its own, which opens this one file (`focus.face.hdf5`).

    The mean of the expressions is part of the mean shape, 100 mm are taken off z (official code of FOCUS), and the
    bases are scaled by the standard deviations. All components are kept; FOCUS uses ``truncated(80, 64, 80)``.

    Args:
        path: for example model2017-1_bfm_nomouth.h5, whose landmarks are known.
        landmarks68: for other files.
    """
    names = ["shape/representer/cells"]
    names += [
        f"{part}/model/{key}"
        for part in ("shape", "expression", "color")
        for key in ("mean", "pcaBasis", "pcaVariance")
    ]
    arrays = read_hdf5(path, names, limits.MODEL_FILE)
    count = arrays["shape/model/mean"].size // 3
    means, bases = {}, {}
    for part in ("shape", "expression", "color"):
        means[part] = _tensor(path, f"{part}/model/mean", arrays[f"{part}/model/mean"].ravel(), (3 * count,)).view(
            count, 3
        )
        variance = _tensor(path, f"{part}/model/pcaVariance", arrays[f"{part}/model/pcaVariance"].ravel(), (None,))
        basis = _tensor(path, f"{part}/model/pcaBasis", arrays[f"{part}/model/pcaBasis"], (3 * count, len(variance)))
        bases[part] = (basis * variance.clamp_min(0).sqrt()).T.reshape(-1, count, 3)
    cells = arrays["shape/representer/cells"]
    cells = cells.T if cells.shape[:1] == (3,) else cells
    faces = _tensor(path, "shape/representer/cells", cells, (None, 3), torch.int32)
    if landmarks68 is None and count == _BASEL_2017_VERTICES:
        landmarks68 = _BASEL_2017_LANDMARKS68
    landmarks = checked_landmarks(
        path,
        landmarks68,
        count,
        f"the landmarks of the {_BASEL_2017_VERTICES} vertices of BFM 2017 are known, this has {count}.",
    )
    mean = means["shape"] + means["expression"]
    frame = frame_of(path, mean, {"shape": bases["shape"], "expression": bases["expression"]}, landmarks)
    mean = frame.convert(mean) - torch.tensor(_BASEL_CENTRE)
    color_unit = 255.0 if float(means["color"].max()) > 2 else 1.0
    return MorphableModel(
        mean_shape=mean,
        identity_basis=frame.convert(bases["shape"]),
        expression_basis=frame.convert(bases["expression"]),
        mean_albedo=means["color"] / color_unit,
        albedo_basis=bases["color"] / color_unit,
        faces=outward_faces(path, mean, _checked_faces(path, faces, count)),
        landmarks68=landmarks,
        landmarks7=torch.tensor(_BASEL_2017_LANDMARKS7) if count == _BASEL_2017_VERTICES else None,
        name=f"Basel Face Model ({path.name})",
        licence="Basel Face Model licence: research only, not to be redistributed",
        notes=frame.notes,
    )


def _checked_faces(path: Path, faces: Tensor, count: int) -> Tensor:
    if faces.numel() == 0 or not 0 <= int(faces.min()) <= int(faces.max()) < count:
        got = "none" if faces.numel() == 0 else f"{int(faces.min())}..{int(faces.max())}"
        raise FocusError(f"{path}: faces: expected vertex indices in [0, {count}), got {got}")
    return faces


def load_basel_2009(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """Basel Face Model 2009 (Paysan et al.), 01_MorphableModel.mat. It has no expressions.

    Args:
        path: the .mat file.
        landmarks68: vertices of the landmarks; the file has none.
    """
    names = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl")
    arrays = read_matlab(path, names, limits.MODEL_FILE)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise FocusError(
            f"{path}: expected the arrays {', '.join(names)} of the Basel Face Model 2009; "
            f"missing: {', '.join(missing)}"
        )
    count = arrays["shapeMU"].size // 3

    def scaled(prefix: str, unit: float) -> tuple[Tensor, Tensor]:
        deviation = _tensor(path, f"{prefix}EV", arrays[f"{prefix}EV"].ravel(), (None,))
        mean = _tensor(path, f"{prefix}MU", arrays[f"{prefix}MU"].ravel(), (3 * count,)).view(count, 3)
        basis = _tensor(path, f"{prefix}PC", arrays[f"{prefix}PC"], (3 * count, len(deviation)))
        return mean * unit, (basis * (deviation * unit)).T.reshape(-1, count, 3)

    landmarks = checked_landmarks(path, landmarks68, count, "the Basel Face Model 2009 comes without landmarks.")
    mean, identity = scaled("shape", 1.0)
    frame = frame_of(path, mean, {"shapePC": identity}, landmarks, expected=1e-3)
    mean_albedo, albedo = scaled("tex", 1 / 255)
    faces = _tensor(path, "tl", arrays["tl"], (None, 3), torch.int32) - 1
    mean = _centred(frame.convert(mean), landmarks)
    return MorphableModel(
        mean_shape=mean,
        identity_basis=frame.convert(identity),
        expression_basis=torch.zeros(0, count, 3),
        mean_albedo=mean_albedo,
        albedo_basis=albedo,
        faces=outward_faces(path, mean, _checked_faces(path, faces, count)),
        landmarks68=landmarks,
        name="Basel Face Model 2009",
        licence="Basel Face Model licence: research only, not to be redistributed",
        notes=frame.notes,
    )


# --- Array files ------------------------------------------------------------------------------------------------------


_FLAME = ("v_template", "shapedirs", "f")
_OWN = ("mean", "identity", "expression", "faces", "mean_albedo", "albedo", "landmarks7")
_SHARED = ("landmarks68", "uv")
_WORDS = ("expression_prior", "name", "licence")
_LONGEST_TEXT = 1000


def load_arrays(path: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """An .npz of plain arrays, or FLAME's arrays saved as .npz.

    Ours has mean ``[V, 3]`` mm, identity ``[Ki, V, 3]``, expression ``[Ke, V, 3]``, faces ``[F, 3]``, landmarks68
    ``[68]``; optional are uv ``[V, 2]``, mean_albedo ``[V, 3]`` with albedo ``[Ka, V, 3]``, landmarks7 ``[7]``,
    expression_prior, expression_names, name and licence. Without colours,
    `MorphableModel.with_gaussian_process_albedo` makes synthetic ones. Expressions with names are blend shapes with
    weights in [0, 1] unless expression_prior says otherwise. The model is moved so that the tip of its nose is at
    `NOSE_TIP`.

    FLAME (Li et al. 2017) has v_template ``[V, 3]`` in metres, shapedirs ``[V, 3, 300 + 100]`` and f ``[F, 3]``. Its
    pose (jaw, neck, eyes) is left out; its landmarks have to be given. Other arrays are not looked at: they may hold
    objects, as those of ``numpy.savez("flame.npz", **everything)`` do.

    Args:
        path: the file.
        landmarks68: replaces those of the file.
    """
    archive = ArrayArchive(path, limits.MODEL_FILE)
    if "v_template" in archive.names:
        arrays = _flame_arrays(path, archive.read((*_FLAME, *_SHARED)))
        licence = "FLAME model licence: not to be redistributed"
        return _from_arrays(path, arrays, landmarks68, name="FLAME", licence=licence, unit=1e3)
    arrays = archive.read((*_OWN, *_SHARED, *_WORDS))
    missing = [key for key in ("mean", "identity", "expression", "faces") if key not in arrays]
    if missing:
        have = ", ".join(name[:40] for name in sorted(archive.names)[:20]) or "nothing"
        raise FocusError(
            f"{path}: expected the arrays mean, identity, expression, faces, landmarks68; "
            f"missing: {', '.join(missing)}; it has: {have}"
        )
    return _from_arrays(
        path,
        arrays,
        landmarks68,
        name=_text(path, arrays, "name", path.stem),
        licence=_text(path, arrays, "licence", "unknown"),
        prior=_prior(path, arrays, "unit_interval" if "expression_names" in archive.names else "normal"),
    )


def load_ict_facekit(folder: Path, landmarks68: Sequence[int] | None = None) -> MorphableModel:
    """The face and the eyeballs of ICT-FaceKit (Li et al. 2020); see `focus.face.ict_facekit`.

    Coefficients of identity are standard normal, expressions are blend shapes with weights in [0, 1], in the order of
    vertex_indices.json. It has no colours: they are synthetic. More than 150 text files are read, which takes half a
    minute; `MorphableModel.save` the result.

    Args:
        folder: FaceXModel.
        landmarks68: vertices of generic_neutral_mesh.obj in place of those that vertex_indices.json names.
    """
    arrays = read_ict_facekit(folder, landmarks68)
    licence = "MIT, USC Institute for Creative Technologies"
    return _from_arrays(folder, arrays, None, name="ICT-FaceKit", licence=licence, prior="unit_interval", unit=10.0)


def _from_arrays(
    path: Path,
    arrays: dict[str, Array],
    landmarks68: Sequence[int] | None,
    *,
    name: str,
    licence: str,
    prior: ExpressionPrior = "normal",
    unit: float = 1.0,
) -> MorphableModel:
    """A model from arrays in the names of `load_arrays`, in a unit of so many millimetres."""
    count = arrays["mean"].shape[0] if arrays["mean"].ndim else 0
    mean = _tensor(path, "mean", arrays["mean"], (count, 3))
    faces = _checked_faces(path, _tensor(path, "faces", arrays["faces"], (None, 3), torch.int32), count)
    if landmarks68 is None and "landmarks68" in arrays:
        landmarks68 = arrays["landmarks68"].ravel().tolist()
    landmarks = checked_landmarks(path, landmarks68, count, "it has no array landmarks68.")
    has_albedo = "mean_albedo" in arrays
    if has_albedo and "albedo" not in arrays:
        raise FocusError(f"{path}: expected the array albedo [Ka, {count}, 3] beside mean_albedo; it is missing")
    bases = {key: _tensor(path, key, arrays[key], (None, count, 3)) for key in ("identity", "expression")}
    frame = frame_of(path, mean, bases, landmarks, unit)
    mean = frame.convert(mean)
    model = MorphableModel(
        mean_shape=_centred(mean, landmarks),
        identity_basis=frame.convert(bases["identity"]),
        expression_basis=frame.convert(bases["expression"]),
        mean_albedo=_tensor(path, "mean_albedo", arrays["mean_albedo"], (count, 3))
        if has_albedo
        else torch.full((count, 3), 0.5),
        albedo_basis=_tensor(path, "albedo", arrays["albedo"], (None, count, 3))
        if has_albedo
        else torch.zeros(0, count, 3),
        faces=outward_faces(path, mean, faces),
        landmarks68=landmarks,
        landmarks7=_tensor(path, "landmarks7", arrays["landmarks7"], (7,), torch.int64)
        if "landmarks7" in arrays
        else None,
        uv=_tensor(path, "uv", arrays["uv"], (count, 2)) if "uv" in arrays else None,
        name=name,
        licence=licence,
        expression_prior=prior,
        notes=frame.notes,
    )
    return model if has_albedo else model.with_gaussian_process_albedo()


def _text(path: Path, arrays: dict[str, Array], key: str, default: str) -> str:
    if key not in arrays:
        return default
    array = arrays[key]
    if array.size != 1 or array.dtype.kind not in "SU" or array.dtype.itemsize > 4 * _LONGEST_TEXT:
        raise FocusError(f"{path}: {key}: expected one text, got {array.dtype} of shape {list(array.shape)}")
    value = array.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _prior(path: Path, arrays: dict[str, Array], default: ExpressionPrior) -> ExpressionPrior:
    text = _text(path, arrays, "expression_prior", default)
    if text == "normal":
        return "normal"
    if text == "unit_interval":
        return "unit_interval"
    raise FocusError(f"{path}: expression_prior: expected 'normal' or 'unit_interval', got {text[:40]!r}")


def _flame_arrays(path: Path, arrays: dict[str, Array]) -> dict[str, Array]:
    """FLAME in the names of our array files, in metres."""
    missing = [key for key in ("shapedirs", "f") if key not in arrays]
    if missing:
        raise FocusError(f"{path}: expected FLAME with v_template, shapedirs and f; missing: {', '.join(missing)}")
    template, directions = arrays["v_template"], arrays["shapedirs"]
    if template.dtype.kind != "f":
        raise FocusError(f"{path}: v_template: expected numbers, got {template.dtype}")
    if directions.ndim != 3 or directions.shape[2] < 300 or directions.dtype.kind != "f":
        raise FocusError(
            f"{path}: shapedirs: expected [V, 3, 300 or more] numbers, got {list(directions.shape)} {directions.dtype}"
        )
    components = np.moveaxis(directions, 2, 0)
    renamed = {
        "mean": template,
        "identity": components[:300],
        "expression": components[300:],
        "faces": arrays["f"],
    }
    return renamed | {key: arrays[key] for key in ("landmarks68", "uv") if key in arrays}
