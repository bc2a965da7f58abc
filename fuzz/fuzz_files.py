"""Fuzzes everything that reads files: damaged and hostile ones end in a result or in `FocusError`, never in a crash.

    python fuzz/fuzz_files.py --seconds 600                     # each reader for ten minutes, one after another
    python fuzz/fuzz_files.py --reader mat --seed 7 --inputs 5000
    python fuzz/fuzz_files.py --reader mat --again build/fuzz/files/mat-7-123.mat
    python fuzz/fuzz_files.py --reader mat --guided --seconds 600   # by atheris, which pip installs

Small valid files are mutated: bits, interesting numbers of 8 to 64 bits in both byte orders, cuts, slices that move
or repeat; half of the changes hit the first or last bytes, where the structure is. Every input is read in a forked
process, so that a signal (a crash, or the alarm of one that takes too long) ends that process alone. What is found is
kept with its traceback, and the exit status is 1. A finding becomes a test of the reader.

Each reader is one line of `READERS`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

if "--guided" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["focus"]):
        import focus.cli  # the names below come from modules that note which of their branches were taken
        import focus.eval.now.pickles
        import focus.face.loaders  # noqa: F401

from focus.data.detection.photos import DetectionSettings, detect_photos
from focus.errors import FocusError, FocusWarning
from focus.face import MorphableModel

SECONDS_PER_INPUT = 30
MEMORY = 1 << 30
"""Bytes by which the memory of a process may grow: an image may have 120 million pixels, 7 bytes each while read."""
BATCH = 50


class Reader(NamedTuple):
    """What is fuzzed."""

    valid: Callable[[], bytes]
    """Makes a small file that the reader accepts."""
    suffix: str
    read: Callable[[Path], object]
    """Gets a file of this suffix; may change it first, for example to put mutated bytes into a valid container."""
    short: int = 200
    """Inputs of the short form that runs with the tests."""


# --- Face models ------------------------------------------------------------------------------------------------------

VERTICES = 72


def _face_arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    mean = generator.normal(size=(VERTICES, 3)).astype(np.float32) * 60
    mean[36:42], mean[42:48], mean[48:68] = (-30, 30, 20), (30, 30, 20), (0, -40, 30)  # eyes and mouth
    mean[36], mean[45], mean[30] = (-45, 30, 10), (45, 30, 10), (0, -5, 50)  # outer corners of the eyes, nose tip
    return {
        "mean": mean,
        "identity": generator.normal(size=(2, VERTICES, 3)).astype(np.float32),
        "expression": generator.normal(size=(1, VERTICES, 3)).astype(np.float32),
        "faces": generator.integers(0, VERTICES, size=(40, 3)).astype(np.int32),
        "landmarks68": np.arange(68),
        "mean_albedo": np.full((VERTICES, 3), 0.5, np.float32),
        "albedo": np.zeros((1, VERTICES, 3), np.float32),
    }


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, **_face_arrays())
    return file.getvalue()


def _npy_mean() -> bytes:
    file = io.BytesIO()
    np.save(file, _face_arrays()["mean"])
    return file.getvalue()


def _focusmodel() -> bytes:
    from focus.face import MorphableModel

    arrays = _face_arrays()
    renamed = {"mean": "mean_shape", "identity": "identity_basis", "expression": "expression_basis"}
    renamed |= {"albedo": "albedo_basis"}
    model = MorphableModel(**{renamed.get(key, key): torch.from_numpy(value) for key, value in arrays.items()})
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "a.focusmodel")
        return (Path(folder) / "a.focusmodel").read_bytes()


def _mat(compressed: bool) -> bytes:
    import scipy.io

    arrays, ones = _face_arrays(), np.ones((2, 1))
    bases = np.random.default_rng(1).normal(size=(2, 3 * VERTICES, 2))
    file = io.BytesIO()
    contents = {"shapeMU": 1e3 * arrays["mean"].reshape(-1, 1), "shapePC": bases[0], "shapeEV": 100 * ones}
    contents |= {"texMU": np.full((3 * VERTICES, 1), 128.0), "texPC": bases[1], "texEV": ones}
    scipy.io.savemat(file, contents | {"tl": arrays["faces"] + 1.0}, do_compression=compressed)
    return file.getvalue()


def _hdf5(**options: object) -> bytes:
    import h5py

    arrays, file = _face_arrays(), io.BytesIO()
    with h5py.File(file, "w") as content:
        for part in ("shape", "expression", "color"):
            mean = arrays["mean"].ravel() if part == "shape" else np.full(3 * VERTICES, 0.5)
            content.create_dataset(f"{part}/model/mean", data=mean, **options)
            content.create_dataset(f"{part}/model/pcaBasis", data=np.ones((3 * VERTICES, 2), np.float32), **options)
            content.create_dataset(f"{part}/model/pcaVariance", data=np.ones(2), **options)
        content.create_dataset("shape/representer/cells", data=arrays["faces"].T, **options)
    return file.getvalue()


def _model(path: Path) -> object:
    from focus.face import MorphableModel

    return MorphableModel.load(path, range(68))


def _npz_of_member(path: Path) -> object:
    """The mutated bytes as the array "mean" of an archive whose checksums are right."""
    data, other = path.read_bytes(), io.BytesIO()
    np.savez(other, **{key: value for key, value in _face_arrays().items() if key != "mean"})
    with zipfile.ZipFile(other, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mean.npy", data)
    path.write_bytes(other.getvalue())
    return _model(path)


# --- Others -----------------------------------------------------------------------------------------------------------


def _image(kind: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        rows, columns = np.mgrid[:24, :24]
        pixels = np.stack([rows * 9, columns * 9, rows * 3 + columns * 5], -1).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, **options)
        return file.getvalue()

    return make


def _read_image(path: Path) -> object:
    from focus.data import image_size, read_image

    return image_size(path), read_image(path)


def _weights(kind: str) -> Callable[[], bytes]:
    def make() -> bytes:
        import safetensors.torch

        tensors = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3, dtype=torch.float16)}
        file = io.BytesIO()
        if kind == "safetensors":
            return safetensors.torch.save(tensors)
        torch.save({"state_dict": tensors}, file, _use_new_zipfile_serialization=kind == "zip")
        return file.getvalue()

    return make


def _read_weights(path: Path) -> object:
    from focus.nets import load_weights, read_weights

    module = torch.nn.Module()
    module.a = torch.nn.Linear(4, 3)
    return load_weights(module, read_weights(path), source=str(path))


def _lesson() -> bytes:
    from focus.data.lessons import Lesson
    from focus.face import FaceParameters

    size = 10
    image, plane = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lesson"
        Lesson(image, plane, plane > 0, FaceParameters.mean(_small_face()), 1.0, 0.5).save(path)
        return path.read_bytes()


def _read_lesson(path: Path) -> object:
    from focus.data.lessons import Lesson

    return Lesson.load(path, _small_face(), 10)


def _small_face() -> MorphableModel:
    return MorphableModel.procedural("small").truncated(2, 2, 2)


def _weights_of_pickle(path: Path) -> object:
    """The mutated bytes as the pickle of a file of torch.save whose checksums are right."""
    data, other = path.read_bytes(), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_weights("zip")())) as source, zipfile.ZipFile(other, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, data if entry.filename.endswith("data.pkl") else source.read(entry))
    path.write_bytes(other.getvalue())
    return _read_weights(path)


def _weights_pickle() -> bytes:
    with zipfile.ZipFile(io.BytesIO(_weights("zip")())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _box(protocol: int) -> Callable[[], bytes]:
    def make() -> bytes:
        content = np.array(None, dtype=object)
        content[()] = {"left": 10.0, "top": np.float64(20), "right": np.array([99.5]), "bottom": np.int64(140)}
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        return file.getvalue() + pickle.dumps(content, protocol=protocol)

    return make


def _plain_box() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([10.0, 20, 99.5, 140]))
    return file.getvalue()


def _read_box(path: Path) -> object:
    from focus.eval.now import read_box

    return read_box(path)


def _indices(path: Path) -> object:
    from focus.face.loaders import read_landmarks68

    return read_landmarks68(path)


def _ict_indices(path: Path) -> object:
    from focus.face.ict_facekit import read_indices

    return read_indices(path)


# --- Tables and meshes ------------------------------------------------------------------------------------------------

POINTS = np.random.default_rng(2).normal(size=(7, 3)).round(3)


def _table(separator: str, encoding: str) -> Callable[[], bytes]:
    def make() -> bytes:
        numbers = [f"{20 + 0.5 * i:.1f}" for i in range(136)]
        numbers = [number.replace(".", ",") for number in numbers] if separator == ";" else numbers
        rows = [separator.join([name, *numbers[:count]]) for name, count in (("a.jpg", 136), ('"b c.jpg"', 10))]
        return ("\r\n".join([separator.join(["file", "x", "y"]), *rows]) + "\r\n").encode(encoding)

    return make


def _read_table(path: Path) -> object:
    from focus.data.landmarks import find_faces, read_landmarks

    return find_faces(path.parent, read_landmarks(path).rows)


_FACE = np.stack([np.linspace(10, 90, 68), 20 + np.arange(68) % 7], axis=1)


def _pts() -> bytes:
    lines = "\n".join(f"{x:.1f} {y:.1f}" for x, y in _FACE)
    return f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n".encode()


def _five_points() -> bytes:
    return "".join(f"{x:.1f} {y:.1f}\n" for x, y in _FACE[:5]).encode()


def _points_json() -> bytes:
    mesh = [{"x": round(0.002 * i, 3), "y": 0.5, "z": 0.0} for i in range(468)]
    return json.dumps({"a.jpg": [_FACE.tolist()], "b.jpg": {"face_landmarks": [mesh]}}).encode()


def _detections() -> bytes:
    entry = {"sha256": "0" * 64, "faces": [{"score": 0.9, "box": [1, 2, 3, 4]}], "reason": None}
    made_by = DetectionSettings().described()
    return json.dumps({"format": 1, "made_by": made_by, "table": "", "photos": {"a.jpg": entry}}).encode()


def _read_detections(path: Path) -> object:
    table = path.with_suffix(".csv")
    table.write_text(",".join(["a.jpg", *map(str, _FACE.reshape(-1).tolist())]))
    return detect_photos({}, table)


_MESH_POSITIONS = [f"{x} {y} {0.5 * x}" for x in range(4) for y in range(4)]
_POLYGONS = [[i, i + 1, i + 5, i + 4] for i in (0, 1, 2, 4, 5, 6)] + [[8, 9, 12], [9, 10, 14, 13, 12]]


def _obj() -> bytes:
    lines = ["# a mesh", "mtllib a.mtl", *(f"v {position} 0.1 0.2 0.3" for position in _MESH_POSITIONS), "vt 0 0.5"]
    lines += ["usemtl skin", *("f " + " ".join(f"{v + 1}/1//" for v in polygon) for polygon in _POLYGONS[:4])]
    lines = [line.replace("//", "") for line in lines]
    lines += ["f " + " \\\n ".join(str(v - 16) for v in polygon) for polygon in _POLYGONS[4:]]
    return "\n".join(lines).encode()


def _ply(kind: str, polygons: list[list[int]]) -> Callable[[], bytes]:
    def make() -> bytes:
        header = (
            f"ply\nformat {kind} 1.0\ncomment none\nelement vertex 16\nproperty float x\nproperty float y\n"
            "property float z\nproperty uchar red\nproperty list uchar short more\nelement face "
            f"{len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n"
        ).encode()
        if kind == "ascii":
            rows = [f"{position} 7 2 1 1" for position in _MESH_POSITIONS]
            rows += [" ".join(map(str, [len(polygon), *polygon])) for polygon in polygons]
            return header + "\n".join(rows).encode()
        order = "<" if "little" in kind else ">"
        vertices = [
            np.array([float(word) for word in position.split()], f"{order}f4").tobytes()
            + bytes([7, 2])
            + np.array([1, 1], f"{order}i2").tobytes()
            for position in _MESH_POSITIONS
        ]
        faces = [bytes([len(polygon)]) + np.array(polygon, f"{order}i4").tobytes() for polygon in polygons]
        return header + b"".join(vertices + faces)

    return make


def _read_mesh(path: Path) -> object:
    from focus.eval.now.files import read_mesh

    mesh = read_mesh(path)
    if not (np.isfinite(mesh.vertices).all() and 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices)):
        raise AssertionError("a mesh that cannot be used was accepted")
    return mesh


def _picked_points() -> bytes:
    points = "".join(
        f'<point x="{x}" y="{y}" z="{z}" active="1" name="{i}"/>\n' for i, (x, y, z) in enumerate(POINTS.tolist())
    )
    return f"<!DOCTYPE PickedPoints>\n<PickedPoints>\n{points}</PickedPoints>\n".encode()


def _read_picked_points(path: Path) -> object:
    from focus.eval.now.files import read_picked_points

    return read_picked_points(path)


def _landmarks(kind: str) -> Callable[[], bytes]:
    def make() -> bytes:
        file = io.BytesIO()
        if kind == "npy":
            np.save(file, POINTS.astype(">f4"))
        else:
            np.savetxt(file, POINTS, delimiter=",")
        return file.getvalue()

    return make


def _read_landmarks(path: Path) -> object:
    from focus.eval.now.files import read_landmarks

    points = read_landmarks(path)
    if points.shape != (7, 3) or not np.isfinite(points).all():
        raise AssertionError("landmarks that cannot be used were accepted")
    return points


def _image_list(path: Path) -> object:
    from focus.eval.now import read_image_list

    return read_image_list(path)


def _names(path: Path) -> object:
    from focus.eval.masked_photos import read_names

    return read_names(path)


def _mask(path: Path) -> object:
    from focus.eval.mask_files import read_mask

    return read_mask(path)


def _grey_png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(576, dtype=np.uint16).astype(np.uint8).reshape(24, 24)).save(file, "PNG")
    return file.getvalue()


Image.init()
READERS: dict[str, Reader] = {
    "npz": Reader(_npz, ".npz", _model),
    "npz-array": Reader(_npy_mean, ".npz", _npz_of_member),
    "focusmodel": Reader(_focusmodel, ".focusmodel", _model),
    "mat": Reader(lambda: _mat(False), ".mat", _model),
    "mat-compressed": Reader(lambda: _mat(True), ".mat", _model),
    "hdf5": Reader(_hdf5, ".h5", _model, short=30),
    "hdf5-compressed": Reader(
        lambda: _hdf5(compression="gzip", shuffle=True, fletcher32=True), ".h5", _model, short=30
    ),
    "landmarks68": Reader(lambda: " ".join(map(str, range(68))).encode(), ".txt", _indices),
    "ict-indices": Reader(
        lambda: json.dumps({"expressions": ["jawOpen"], "idx_to_landmark_verts": list(range(68))}).encode(),
        ".json",
        _ict_indices,
    ),
    "jpeg": Reader(
        _image("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"), ".jpg", _read_image
    ),
    "png": Reader(_image("PNG"), ".png", _read_image),
    "webp": Reader(_image("WEBP"), ".webp", _read_image),
    "tiff": Reader(_image("TIFF"), ".tiff", _read_image),
    "tiff-lzw": Reader(_image("TIFF", compression="tiff_lzw"), ".tiff", _read_image),
    "gif": Reader(_image("GIF"), ".gif", _read_image),
    "bmp": Reader(_image("BMP"), ".bmp", _read_image),
    "ppm": Reader(_image("PPM"), ".ppm", _read_image),
    **({"avif": Reader(_image("AVIF"), ".avif", _read_image)} if "AVIF" in Image.SAVE else {}),
    "weights-safetensors": Reader(_weights("safetensors"), ".safetensors", _read_weights),
    "lesson": Reader(_lesson, ".safetensors", _read_lesson),
    "weights-zip": Reader(_weights("zip"), ".pth", _read_weights),
    "weights-pickle": Reader(_weights_pickle, ".pth", _weights_of_pickle),
    "weights-legacy": Reader(_weights("legacy"), ".pth", _read_weights),
    "box-plain": Reader(_plain_box, ".npy", _read_box),
    **{f"box-{protocol}": Reader(_box(protocol), ".npy", _read_box) for protocol in (0, 2, 4, 5)},
    "landmarks-commas": Reader(_table(",", "utf-8-sig"), ".csv", _read_table),
    "landmarks-semicolons": Reader(_table(";", "utf-8"), ".csv", _read_table),
    "landmarks-tabs": Reader(_table("\t", "utf-16"), ".csv", _read_table),
    "landmarks-pts": Reader(_pts, ".pts", _read_table),
    "landmarks-points": Reader(_five_points, ".txt", _read_table),
    "landmarks-json": Reader(_points_json, ".json", _read_table),
    "detections": Reader(_detections, ".json", _read_detections),
    "obj": Reader(_obj, ".obj", _read_mesh),
    "ply-ascii": Reader(_ply("ascii", _POLYGONS), ".ply", _read_mesh),
    "ply-little": Reader(_ply("binary_little_endian", _POLYGONS[:6]), ".ply", _read_mesh),
    "ply-big": Reader(_ply("binary_big_endian", _POLYGONS), ".ply", _read_mesh),
    "picked-points": Reader(_picked_points, ".pp", _read_picked_points),
    "now-landmarks-npy": Reader(_landmarks("npy"), ".npy", _read_landmarks),
    "now-landmarks-text": Reader(_landmarks("txt"), ".txt", _read_landmarks),
    "now-images": Reader(lambda: b"A/selfie/1.jpg\nx/B/selfie/2.jpg\r\n", ".txt", _image_list),
    "names": Reader(lambda: b"a.jpg\nsub/b\n", ".txt", _names),
    "mask": Reader(_grey_png, ".png", _mask),
}
"""Name -> what makes a valid file, its suffix, what reads it."""


# --- Mutations --------------------------------------------------------------------------------------------------------

_INTERESTING = [0, 1, 2, 3, 4, 7, 8, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 1000, 4096]
_INTERESTING += [(1 << bits) + offset for bits in (15, 16, 31, 32, 33, 40, 62, 63, 64) for offset in (-1, 0, 1)]
_WORDS = [
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"1e400",
    b"99999999999999999999",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\0",
    b"\\\n",
    b"#",
]
_WORDS += [b"[" * 64, b"-" * 64, b"\xff" * 16, b"\0" * 64]


def mutate(data: bytes, source: random.Random) -> bytes:
    """Some changes of a file."""
    content = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        if not content:
            break
        ends = (source.randrange(min(len(content), 512)), len(content) - 1 - source.randrange(min(len(content), 256)))
        place = source.choice((*ends, source.randrange(len(content)), source.randrange(len(content))))
        length = source.choice((1, 2, 4, 8, 16, 64, 256))
        match source.randrange(9):
            case 0 | 1 | 2:
                content[place] ^= 1 << source.randrange(8)
            case 3 | 4:
                size, order = source.choice((1, 2, 4, 8)), source.choice(("little", "big"))
                number = source.choice(_INTERESTING) * source.choice((1, 1, 1, -1)) % (1 << 8 * size)
                content[place : place + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
            case 5:
                del content[source.choice((place, place + length)) :]
            case 6:
                del content[place : place + length]
            case 7:
                start = source.randrange(len(content))
                piece = content[start : start + length] * source.choice((1, 1, 2, 50))
                content[place : place + source.choice((0, len(piece)))] = piece
            case _:
                content[place : place + source.choice((0, 1, 4))] = source.choice(_WORDS)
    return bytes(content)


# --- Runs -------------------------------------------------------------------------------------------------------------


def _memory(who: int) -> int:
    return resource.getrusage(who).ru_maxrss << 10


def attempt(reader: Reader, path: Path) -> tuple[str, str]:
    """Reads a file: ("accepted" | "refused" | "finding", details)."""
    before = _memory(resource.RUSAGE_SELF)
    try:
        reader.read(path)
        outcome = "accepted"
    except FocusError as error:
        outcome = "refused"
        if len(str(error)) > 2000:
            return "finding", f"a message of {len(str(error))} characters: {str(error)[:500]}"
    except BaseException:
        return "finding", traceback.format_exc()
    grown = max(_memory(resource.RUSAGE_SELF) - before, _memory(resource.RUSAGE_CHILDREN) - before)
    if grown > MEMORY:
        return "finding", f"took {grown >> 20} MiB of memory"
    return outcome, ""


def _batch(reader: Reader, inputs: list[tuple[int, bytes]], folder: Path) -> list[tuple[int, str, str]]:
    """(number, outcome, details) of each input, read one after the other in one process for as long as it lives."""
    results: list[tuple[int, str, str]] = []
    while len(results) < len(inputs):
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(receive)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                with open(send, "wb") as pipe:
                    for number, data in inputs[len(results) :]:
                        path = folder / f"input{reader.suffix}"
                        path.write_bytes(data)
                        signal.alarm(SECONDS_PER_INPUT)
                        pickle.dump((number, *attempt(reader, path)), pipe)
                        signal.alarm(0)
                        pipe.flush()
            finally:
                os._exit(0)
        os.close(send)
        with open(receive, "rb") as pipe:
            while True:
                try:
                    results.append(pickle.load(pipe))
                except EOFError:
                    break
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if len(results) < len(inputs):
            name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            what = f"no answer in {SECONDS_PER_INPUT} s" if code == -signal.SIGALRM else f"ended by {name}"
            results.append((inputs[len(results)][0], "finding", what))
    return results


def fuzz(name: str, *, seed: int, keep: Path, inputs: int | None = None, seconds: float | None = None) -> Counter[str]:
    """Reads mutated files until `inputs` or `seconds` are over; prints and keeps findings.

    Returns:
        How many were accepted, refused, or a finding.
    """
    reader = READERS[name]
    valid = reader.valid()
    counts: Counter[str] = Counter()
    end = None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="focus-fuzz-") as place:
        whole = Path(place) / f"valid{reader.suffix}"
        whole.write_bytes(valid)
        reader.read(whole)  # or the rest would say nothing
        number = 0
        while (inputs is None or number < inputs) and (end is None or time.monotonic() < end):
            count = BATCH if inputs is None else min(BATCH, inputs - number)
            # Each from its own seed: the same number is the same input, however the run was cut into batches.
            batch = [(i, mutate(valid, random.Random(f"{seed} {i}"))) for i in range(number, number + count)]
            number += count
            for index, outcome, details in _batch(reader, batch, Path(place)):
                counts[outcome] += 1
                if outcome == "finding":
                    keep.mkdir(parents=True, exist_ok=True)
                    kept = keep / f"{name}-{seed}-{index}{reader.suffix}"
                    kept.write_bytes(dict(batch)[index])
                    kept.with_name(f"{kept.name}.txt").write_text(details)
                    print(f"{name}: finding, kept as {kept}: {details.strip().splitlines()[-1][:300]}", flush=True)
    print(
        f"{name}: {number} inputs of seed {seed}: {counts['accepted']} accepted, {counts['refused']} refused, "
        f"{counts['finding']} findings",
        flush=True,
    )
    return counts


def guide(name: str, *, keep: Path, seconds: float) -> None:
    """Hands a reader what atheris makes up, in this process, and ends it: with the first finding, or when time is over.

    Finds its way into our own parsers. Of libraries in C it sees nothing, and a crash of theirs ends it, too.
    """
    reader = READERS[name]
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="focus-fuzz-") as place:
        corpus, path = Path(place) / "corpus", Path(place) / f"input{reader.suffix}"
        corpus.mkdir()
        (corpus / "valid").write_bytes(reader.valid())

        def one(data: bytes) -> None:
            path.write_bytes(data)
            outcome, details = attempt(reader, path)
            if outcome == "finding":
                raise AssertionError(details)

        options = [f"-max_total_time={seconds:.0f}", f"-artifact_prefix={keep}/{name}-", "-max_len=20000"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", action="append", choices=READERS, help="which one; may be repeated; default: all")
    parser.add_argument("--seconds", type=float, help="for each reader")
    parser.add_argument("--inputs", type=int, help="for each reader; default without --seconds: the short form")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz/files"), help="folder of findings")
    parser.add_argument("--again", type=Path, help="read this input alone, in this process")
    parser.add_argument("--guided", action="store_true", help="by atheris, guided by coverage; needs one reader")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("error")  # what a file says is no cause for a warning of a library
    warnings.simplefilter("ignore", FocusWarning)
    if options.again is not None:
        if len(options.reader or ()) != 1:
            parser.error("--again needs one --reader")
        print(*attempt(READERS[options.reader[0]], options.again))
        return 0
    if options.guided:
        if len(options.reader or ()) != 1:
            parser.error("--guided needs one --reader")
        guide(options.reader[0], keep=options.keep, seconds=options.seconds or 60.0)
    found = 0
    for name in options.reader or READERS:
        inputs = READERS[name].short if options.seconds is None and options.inputs is None else options.inputs
        counts = fuzz(name, seed=options.seed, keep=options.keep, inputs=inputs, seconds=options.seconds)
        found += counts["finding"]
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
