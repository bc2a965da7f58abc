"""Face models of others: units that the face tells, readers that a file cannot crash, other files that stay unread."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focus.cli import main
from focus.data.landmarks import MIRRORED_LANDMARKS
from focus.errors import FocusError, FocusWarning
from focus.face import MorphableModel, hdf5, hdf5_process
from focus.face.matlab import read_matlab

COUNT = 72
LANDMARKS = list(range(68))
EYES_MM = 92.0


def _numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _mean() -> np.ndarray:
    """[72, 3] mm."""
    mean = 40 * _numbers(COUNT, 3)
    mean[36:42], mean[42:48], mean[48:68] = (-30, 30, 20), (30, 30, 20), (0, -40, 30)
    mean[36], mean[45], mean[30] = (-EYES_MM / 2, 30, 10), (EYES_MM / 2, 30, 10), (0, -5, 50)
    return mean


FACES = np.random.default_rng(1).integers(0, COUNT, size=(50, 3)).astype(np.int32)


def _save_npz(path: Path, scale: float, order: str = "=") -> None:
    arrays = {"mean": _mean() * scale, "identity": _numbers(2, COUNT, 3) * scale, "faces": FACES}
    arrays |= {"expression": _numbers(1, COUNT, 3, seed=2) * scale, "landmarks68": np.array(LANDMARKS)}
    arrays |= {"mean_albedo": np.full((COUNT, 3), 0.5), "albedo": _numbers(1, COUNT, 3) * 0.1}
    np.savez(path, **{name: array.astype(array.dtype.newbyteorder(order)) for name, array in arrays.items()})


def _save_flame(path: Path, scale: float, order: str = "=") -> None:
    directions = np.moveaxis(_numbers(301, COUNT, 3), 0, 2) * scale
    arrays = {"v_template": _mean() * scale, "shapedirs": directions, "f": FACES.astype(np.uint32)}
    np.savez(path, **{name: array.astype(array.dtype.newbyteorder(order)) for name, array in arrays.items()})


def _save_hdf5(path: Path, scale: float, order: str = "=", **options: Any) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for part in ("shape", "expression", "color"):
            mean = _mean().ravel() + np.tile([0, 0, 100], COUNT) if part == "shape" else np.zeros(3 * COUNT)
            unit = 1.0 if part == "color" else scale
            arrays = {"mean": mean * unit, "pcaBasis": _numbers(3 * COUNT, 2) * unit, "pcaVariance": np.ones(2)}
            for name, array in arrays.items():
                data = array.astype(array.dtype.newbyteorder(order))
                file.create_dataset(f"{part}/model/{name}", data=data, **options)
        file.create_dataset("shape/representer/cells", data=FACES.T.astype(f"{order}i8"), **options)


def _mat_arrays(scale: float) -> dict[str, np.ndarray]:
    arrays = {"shapeMU": _mean().reshape(-1, 1) * scale, "shapePC": _numbers(3 * COUNT, 2), "tl": FACES + 1.0}
    arrays |= {"shapeEV": np.full((2, 1), scale), "texMU": np.full((3 * COUNT, 1), 128, np.uint8)}
    return arrays | {"texPC": _numbers(3 * COUNT, 2), "texEV": np.ones((2, 1))}


def _save_mat(path: Path, scale: float, order: str = "<") -> None:
    scipy_io = pytest.importorskip("scipy.io")
    if order == "<":
        scipy_io.savemat(path, _mat_arrays(scale), do_compression=True)
        return
    # SciPy writes little-endian files alone; those of other machines are put together here.
    content = b"big-endian".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    for name, array in _mat_arrays(scale).items():
        data = array.astype(">f8").tobytes(order="F")
        padded = name.encode() + bytes(-len(name) % 8)
        body = struct.pack(">IIII", 6, 8, 6, 0) + struct.pack(">IIii", 5, 8, *array.shape)
        body += struct.pack(">II", 1, len(name)) + padded + struct.pack(">II", 9, len(data)) + data
        content += struct.pack(">II", 14, len(body)) + body
    path.write_bytes(content)


def _save_own(path: Path, scale: float, order: str = "=") -> None:
    del order
    shapes = {"mean_shape": _mean(), "identity_basis": _numbers(2, COUNT, 3), "expression_basis": _numbers(1, COUNT, 3)}
    arrays = {name: torch.from_numpy(array * scale) for name, array in shapes.items()}
    MorphableModel(
        **arrays,  # type: ignore[arg-type]
        mean_albedo=torch.full((COUNT, 3), 0.5),
        albedo_basis=torch.zeros(0, COUNT, 3),
        faces=torch.from_numpy(FACES),
        landmarks68=torch.tensor(LANDMARKS),
    ).save(path)


WRITERS: dict[str, tuple[Callable[..., None], float]] = {
    "a.npz": (_save_npz, 1),
    "flame.npz": (_save_flame, 1e-3),
    "a.h5": (_save_hdf5, 1),
    "a.mat": (_save_mat, 1e3),
    "a.focusmodel": (_save_own, 1),
}
UNITS = {"millimetres": 1.0, "centimetres": 0.1, "metres": 1e-3, "micrometres": 1e3}


def _eyes(model: MorphableModel) -> float:
    return float((model.mean_shape[model.landmarks68[36]] - model.mean_shape[model.landmarks68[45]]).norm())


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("unit", UNITS)
def test_models_in_any_unit_are_read_in_millimetres(tmp_path: Path, name: str, unit: str) -> None:
    save, expected = WRITERS[name]
    save(tmp_path / name, expected)
    right = MorphableModel.load(tmp_path / name, LANDMARKS)
    assert right.notes == ()
    assert _eyes(right) == pytest.approx(EYES_MM, rel=1e-4)
    save(tmp_path / name, UNITS[unit])
    if expected == UNITS[unit]:
        assert MorphableModel.load(tmp_path / name, LANDMARKS).notes == ()
        return
    with pytest.warns(FocusWarning, match=rf"{name}: the model is in {unit}.*apart.*converted.* 92\.0 apart"):
        model = MorphableModel.load(tmp_path / name, LANDMARKS)
    assert [unit in note for note in model.truncated(1).notes] == [True]
    for key in ("mean_shape", "identity_basis", "expression_basis"):
        # Basel's axis z starts 100 mm behind ours.
        torch.testing.assert_close(getattr(model, key), getattr(right, key), rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("divisor", [25.4, 3.0, 1 / 3], ids=["inches", "a third of its size", "three times its size"])
def test_other_units_and_sizes_are_refused_by_the_distance(tmp_path: Path, name: str, divisor: float) -> None:
    save, expected = WRITERS[name]
    save(tmp_path / name, expected / divisor)
    with pytest.raises(FocusError, match=rf"{name}: in which unit is this face\?.* are .* apart; expected about 90 mm"):
        MorphableModel.load(tmp_path / name, LANDMARKS)


# Rows are the axes x, y and z of a file in ours.
TURNS = {
    "y down, looking back": ([[1, 0, 0], [0, -1, 0], [0, 0, -1]], "looks along -z with -y up"),
    "looking back": ([[-1, 0, 0], [0, 1, 0], [0, 0, -1]], "looks along -z with +y up"),
    "z up": ([[1, 0, 0], [0, 0, -1], [0, 1, 0]], "looks along -y with +z up"),
    "x up": ([[0, 1, 0], [0, 0, 1], [1, 0, 0]], "looks along +y with +x up"),
}
MIRRORS = {
    "x": [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "y": [[1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "z": [[1, 0, 0], [0, 1, 0], [0, 0, -1]],
    "y and z exchanged": [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
}


def _turn_toys(monkeypatch: pytest.MonkeyPatch, turn: list[list[int]]) -> None:
    """Makes the writers above write positions and displacements in other axes."""
    numbers, mean, matrix = _numbers, _mean(), np.array(turn, np.float32)

    def turned_numbers(*shape: int, seed: int = 0) -> np.ndarray:
        array = numbers(*shape, seed=seed)
        if shape[0] == 3 * COUNT:
            return np.einsum("ij,vjk->vik", matrix, array.reshape(COUNT, 3, -1)).reshape(shape)
        return array @ matrix.T

    monkeypatch.setattr(sys.modules[__name__], "_mean", lambda: mean @ matrix.T)
    monkeypatch.setattr(sys.modules[__name__], "_numbers", turned_numbers)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("turn", TURNS)
def test_models_in_other_axes_are_turned(tmp_path: Path, name: str, turn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save, unit = WRITERS[name]
    save(tmp_path / name, unit)
    right = MorphableModel.load(tmp_path / name, LANDMARKS)
    matrix, message = TURNS[turn]
    _turn_toys(monkeypatch, matrix)
    save(tmp_path / name, unit)
    with pytest.warns(FocusWarning, match=re.escape(message)):
        model = MorphableModel.load(tmp_path / name, LANDMARKS)
    assert [message in note for note in model.notes] == [True]
    for key in ("identity_basis", "expression_basis"):
        torch.testing.assert_close(getattr(model, key), getattr(right, key), rtol=1e-4, atol=2e-3)
    means = [shape - shape[30] for shape in (model.mean_shape, right.mean_shape)]  # the centre may be another
    torch.testing.assert_close(*means, rtol=1e-4, atol=2e-3)
    assert torch.equal(model.faces, right.faces)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("mirror", MIRRORS)
def test_mirrored_models_are_refused(tmp_path: Path, name: str, mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save, unit = WRITERS[name]
    _turn_toys(monkeypatch, MIRRORS[mirror])
    save(tmp_path / name, unit)
    with pytest.raises(FocusError, match=rf"{name}: the mean face is mirrored.*landmarks68"):
        MorphableModel.load(tmp_path / name, LANDMARKS)


def test_landmarks_in_mirrored_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.focusmodel"
    model = MorphableModel.procedural("small").truncated(2, 2, 2)
    model.save(path)
    with pytest.raises(FocusError, match=r"a\.focusmodel: the mean face is mirrored.*order of iBUG"):
        MorphableModel.load(path, model.landmarks68[torch.from_numpy(MIRRORED_LANDMARKS)].tolist())


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.mat", "a.focusmodel"])
def test_models_that_are_no_surface_of_a_face_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, unit = WRITERS[name]
    here, mean, faces = sys.modules[__name__], _mean(), FACES
    monkeypatch.setattr(here, "FACES", np.zeros_like(faces))
    save(tmp_path / name, unit)
    with pytest.raises(FocusError, match=rf"{name}: faces: expected triangles, got 50 without area"):
        MorphableModel.load(tmp_path / name, LANDMARKS)
    monkeypatch.setattr(here, "FACES", faces)
    mean[70] = 1e9
    monkeypatch.setattr(here, "_mean", lambda: mean)
    save(tmp_path / name, unit)
    with pytest.raises(FocusError, match=rf"{name}: its vertices are up to .* apart"):
        MorphableModel.load(tmp_path / name, LANDMARKS)


def test_surfaces_that_are_inside_out_are_turned(tmp_path: Path) -> None:
    model = MorphableModel.procedural("small").truncated(2, 2, 2)
    model.save(tmp_path / "right.focusmodel")
    model.faces = model.faces.flip(1)
    model.save(tmp_path / "a.focusmodel")
    right, turned = (MorphableModel.load(tmp_path / name) for name in ("right.focusmodel", "a.focusmodel"))
    assert torch.equal(right.faces, turned.faces)


def test_commands_tell_the_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save_npz(tmp_path / "a.npz", 1e-3)
    assert main(["model", str(tmp_path / "a.npz"), "--save", str(tmp_path / "a.focusmodel")]) == 0
    printed = capsys.readouterr()
    assert "the model is in metres, not millimetres" in " ".join(printed.err.split())
    assert "converted to millimetres" in " ".join(printed.out.split())
    assert _eyes(MorphableModel.load(tmp_path / "a.focusmodel")) == pytest.approx(EYES_MM)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "a.focusmodel"])
def test_arrays_of_other_machines(tmp_path: Path, name: str) -> None:
    save, scale = WRITERS[name]
    save(tmp_path / name, scale)
    expected = MorphableModel.load(tmp_path / name, LANDMARKS)
    save(tmp_path / name, scale, order=">")
    model = MorphableModel.load(tmp_path / name, LANDMARKS)
    for (key, first), (_, second) in zip(expected.named_buffers(), model.named_buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-4, msg=key)


def test_numbers_beyond_single_precision_are_no_model(tmp_path: Path) -> None:
    _save_npz(tmp_path / "a.npz", 1)
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    for value in (1e300, np.inf):
        identity = arrays["identity"].astype(np.float64)
        identity[0, 0, 0] = value
        np.savez(tmp_path / "a.npz", **{**arrays, "identity": identity})
        with pytest.raises(FocusError, match="identity_basis: expected finite numbers"):
            MorphableModel.load(tmp_path / "a.npz")


def test_what_is_needed_of_flame_must_be_numbers(tmp_path: Path) -> None:
    _save_flame(tmp_path / "a.npz", 1e-3)
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "a.npz", **arrays, J_regressor=np.array({}, dtype=object), posedirs=np.array([None]))
    assert MorphableModel.load(tmp_path / "a.npz", LANDMARKS).identity_count == 300
    np.savez(tmp_path / "a.npz", **{**arrays, "shapedirs": np.array({}, dtype=object)})
    with pytest.raises(FocusError, match="the array shapedirs: an array of Python objects"):
        MorphableModel.load(tmp_path / "a.npz", LANDMARKS)


# --- MATLAB -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_arrays_are_what_scipy_reads(tmp_path: Path, compressed: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    arrays: dict[str, Any] = {
        "float64": _numbers(7, 3).astype(float),
        "one": np.float32([[1.5]]),
        "e": np.zeros((0, 3)),
    }
    arrays |= {"small": np.arange(20.0).reshape(4, 5), "uint16": np.arange(12, dtype=np.uint16).reshape(2, 3, 2)}
    arrays |= {"int64": np.array([[-5, 1 << 40]]), "flags": np.array([[True, False]])}
    others = {"text": "some", "cell": {"a": 1}, "complex": np.array([[1j]]), "list": np.array([1, "a"], dtype=object)}
    scipy_io.savemat(tmp_path / "a.mat", others | arrays, do_compression=compressed)
    read, expected = read_matlab(tmp_path / "a.mat", arrays, 1 << 20), scipy_io.loadmat(tmp_path / "a.mat")
    for name in arrays:
        assert read[name].dtype == expected[name].dtype
        np.testing.assert_array_equal(read[name], expected[name])
    for name, kind in (("text", "text"), ("cell", "a structure"), ("complex", "complex"), ("list", "a cell array")):
        with pytest.raises(FocusError, match=rf"a\.mat: .*{name} is .*{kind}"):
            read_matlab(tmp_path / "a.mat", [name], 1 << 20)


def test_matlab_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, {"shapeMU": np.zeros((1000, 1000))}, do_compression=True)
    assert path.stat().st_size < 20_000
    with pytest.raises(FocusError, match="its arrays have more than 1048576 bytes, the limit"):
        read_matlab(path, ["shapeMU"], 1 << 20)
    # The tag of the array claims 4 GB.
    element = zlib.compress(struct.pack("<II", 14, 0xFFFFFF00) + zlib.decompress(path.read_bytes()[136:])[8:])
    path.write_bytes(path.read_bytes()[:128] + struct.pack("<II", 15, len(element)) + element)
    with pytest.raises(FocusError, match="claim to be 4294967040"):
        read_matlab(path, ["shapeMU"], 1 << 40)


def test_newer_matlab_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(FocusError, match=r"a\.mat: .*version 0x0200 of the format; save it with -v7"):
        MorphableModel.load(tmp_path / "a.mat", LANDMARKS)


# --- HDF5 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True}, {"chunks": True, "fletcher32": True}]
)
def test_hdf5_is_read_in_any_layout(tmp_path: Path, options: dict[str, Any]) -> None:
    _save_hdf5(tmp_path / "a.h5", 1)
    expected = MorphableModel.load(tmp_path / "a.h5", LANDMARKS)
    _save_hdf5(tmp_path / "b.h5", 1, **options)
    model = MorphableModel.load(tmp_path / "b.h5", LANDMARKS)
    assert torch.equal(model.mean_shape, expected.mean_shape)
    assert torch.equal(model.faces, expected.faces)


def _replace(path: Path, change: Callable[[Any, str], object]) -> None:
    h5py = pytest.importorskip("h5py")
    _save_hdf5(path, 1)
    with h5py.File(path, "a") as file:
        file.move("shape/model/mean", "moved")
        change(file, "shape/model/mean")


def _virtual(file: Any, name: str) -> None:
    import h5py

    layout = h5py.VirtualLayout(shape=(3 * COUNT,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "shape/model/mean", shape=(3 * COUNT,))
    file.create_virtual_dataset(name, layout)


def _link(kind: str) -> Callable[[Any, str], None]:
    def change(file: Any, name: str) -> None:
        import h5py

        links = {"external": h5py.ExternalLink("other.h5", f"/{name}"), "soft": h5py.SoftLink("/moved")}
        if kind == "group":
            del file["color"]
            file["color"] = h5py.ExternalLink("other.h5", "/color")
            file.move("moved", name)
        else:
            file[name] = links[kind]

    return change


FOREIGN: dict[str, tuple[Callable[[Any, str], object], str]] = {
    "storage": (
        lambda file, name: file.create_dataset(name, (24,), dtype="f8", external=[("private.txt", 0, 192)]),
        "has its numbers in another file",
    ),
    "link": (_link("external"), "links are not followed"),
    "link of a group": (_link("group"), "links are not followed"),
    "soft link": (_link("soft"), "links are not followed"),
    "virtual": (_virtual, "a virtual dataset"),
    "plugin": (
        lambda file, name: file.create_dataset(name, (216,), dtype="f4", compression="lzf"),
        "compressed by filter 32000",
    ),
    "text": (lambda file, name: file.create_dataset(name, data=[b"a"]), "expected numbers"),
    "compound": (lambda file, name: file.create_dataset(name, (3,), dtype=[("a", "f4")]), "expected numbers"),
    "a group": (lambda file, name: file.create_group(name), "mean is something else"),
    "large": (
        lambda file, name: file.create_dataset(name, (3 << 25,), dtype="f8", chunks=(1 << 20,), compression="gzip"),
        "claims 805306368 bytes of numbers, of which 0 were ever written",
    ),
    "large chunk": (
        lambda file, name: file.create_dataset(name, (216,), maxshape=(None,), dtype="f8", chunks=(1 << 28,)),
        "in chunks of 2147483648",
    ),
    "endless": (lambda file, name: file.create_dataset(name, (1 << 60,), dtype="f4", chunks=(1024,)), "claims 46116"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_hdf5_reads_no_other_file_and_believes_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private.txt").write_bytes(bytes(192))
    _save_hdf5(tmp_path / "other.h5", 1)
    change, message = FOREIGN[what]
    _replace(tmp_path / "a.h5", change)
    with pytest.raises(FocusError, match=rf"a\.h5: .*{message}"):
        MorphableModel.load(Path("a.h5"), LANDMARKS)


def test_what_happens_to_the_second_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save_hdf5(tmp_path / "a.h5", 1)
    program = tmp_path / "program.py"
    monkeypatch.setattr(hdf5_process, "__file__", str(program))
    monkeypatch.setattr(hdf5, "_SECONDS", 10.0)
    header = '{"arrays": [["shape/representer/cells", "<f4", [1]]]}'
    for text, message in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"ended that process \(SIGSEGV\)"),
        ("raise SystemExit(3)", "exit status 3"),
        ("print('no JSON')", "ended that process"),
        ("print('[' * 10**6)", "ended that process"),
        ("""print('{"refused": "\\\\u001b[31mred"}')""", r"\?\[31mred"),
        ("""print('{"missing": "no h5py"}')""", "h5py is needed.*no h5py"),
        (f"print('{header}')", "ended that process"),
        (f"print('{header}', 'abcd', sep='\\n', end='')", "ended that process"),
        ("""print('{"arrays": [["a", "|O", [1]]]}')""", "ended that process"),
        ("""print('{"arrays": [["a", "<f8", [99999999999999]]]}')""", "ended that process"),
        ("""print('{"arrays": [["a", "<f8", [-1]]]}')""", "ended that process"),
    ):
        program.write_text(text)
        with pytest.raises(FocusError, match=rf"a\.h5: .*{message}"):
            MorphableModel.load(tmp_path / "a.h5", LANDMARKS)
    monkeypatch.setattr(hdf5, "_SECONDS", 0.5)
    program.write_text("import time\nwhile True: time.sleep(1)")
    with pytest.raises(FocusError, match="did not end within"):
        MorphableModel.load(tmp_path / "a.h5", LANDMARKS)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(FocusError, match=r"second Python .*no python\), which could not be started"):
        MorphableModel.load(tmp_path / "a.h5", LANDMARKS)


def test_hdf5_is_read_from_threads_and_without_a_main_module(tmp_path: Path) -> None:
    _save_hdf5(tmp_path / "a.h5", 1)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(MorphableModel.load(tmp_path / "a.h5", LANDMARKS).vertex_count))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [COUNT] * 4
    program = (
        "import sys; from focus.face import MorphableModel as M; print(M.load(sys.argv[1], range(68)).vertex_count)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "a.h5"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (result.stdout, result.stderr) == (f"{COUNT}\n", "")


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".mat", ".focusmodel", ".safetensors", ".pkl", ""])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_models_are_ordinary_files(tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(FocusError, match="FIFO" if kind == "fifo" else "device"):
        MorphableModel.load(path, LANDMARKS)


def test_files_of_an_ict_folder_are_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "generic_neutral_mesh.obj").write_text("v 0 0 0\n")
    os.mkfifo(tmp_path / "vertex_indices.json")
    with pytest.raises(FocusError, match=r"vertex_indices\.json.* FIFO"):
        MorphableModel.load(tmp_path)
