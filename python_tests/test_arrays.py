"""NumPy's array files: every layout that numpy writes, and what a file can claim."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from focus.arrays import ArrayArchive, read_array, read_array_header
from focus.errors import FocusError

MIB = 1 << 20


def _header(text: str, version: int = 1) -> bytes:
    data = text.ljust(117).encode("utf-8") + b"\n"
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(data)) + data


def _archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        st.one_of(
            arrays.floating_dtypes(sizes=(16, 32, 64)),
            arrays.integer_dtypes(),
            arrays.unsigned_integer_dtypes(),
            arrays.boolean_dtypes(),
            arrays.unicode_string_dtypes(max_len=5),
        ),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0),
    ),
    st.booleans(),
)
def test_arrays_are_what_numpy_reads(array: np.ndarray, transposed: bool) -> None:
    file = io.BytesIO()
    np.save(file, array.T if transposed else array)
    read = read_array(io.BytesIO(file.getvalue()), len(file.getvalue()))
    expected = np.load(io.BytesIO(file.getvalue()))
    assert read.dtype == expected.dtype
    assert read.shape == expected.shape
    assert read.tobytes() == expected.tobytes()


@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_every_version_and_of_python_2(version: int) -> None:
    text = "{'descr': '>f4', 'fortran_order': False, 'shape': (2L, 3L), }"
    header = read_array_header(io.BytesIO(_header(text, version)))
    assert (header.dtype, header.shape, header.fortran_order) == (np.dtype(">f4"), (2, 3), False)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3.5), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1e9,), }",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': [('a', '<f4'), ('b', '|O')], 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "__import__('os').abort()",
        "(" * 100,
        "{'descr': '<U999999999', 'fortran_order': False, 'shape': (2,), }",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},), }}",
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 40}), }}",
        "",
    ],
)
def test_what_no_array_says_of_itself_is_refused(text: str) -> None:
    data = _header(text) + bytes(8)
    with pytest.raises(ValueError, match=r"\w"):
        read_array(io.BytesIO(data), len(data))


def test_only_what_is_asked_for_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    objects = np.array([{}, []], dtype=object)
    np.savez(path, good=np.arange(3, dtype=">i2"), objects=objects, text=np.array("name"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("damaged.npy", b"no array")
    archive = ArrayArchive(path, MIB)
    assert list(archive.names) == ["good", "objects", "text", "damaged"]
    read = archive.read(["good", "text", "absent"])
    assert {name: array.tolist() for name, array in read.items()} == {"good": [0, 1, 2], "text": "name"}
    for name, message in (("objects", "the array objects: an array of Python objects"), ("damaged", "array damaged")):
        with pytest.raises(FocusError, match=rf"a\.npz: .*{message}"):
            archive.read(["good", name])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }")}, "claims 799999999992"),
        ({"a": _header("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }") + bytes(9)}, "claims 8 bytes"),
        ({"a": b""}, "does not start"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_claims_are_compared_before_memory_is_spent(
    tmp_path: Path, members: dict[str, bytes], message: str, compression: int
) -> None:
    path = _archive(tmp_path / "a.npz", members, compression)
    with pytest.raises(FocusError, match=message):
        ArrayArchive(path, MIB).read(["a"])


def _good(count: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(count))
    return file.getvalue()


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    path = _archive(tmp_path / "a.npz", {"a": _good(100_000), "b": _good(100_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    assert ArrayArchive(path, MIB).read(["a"])["a"].shape == (100_000,)
    with pytest.raises(FocusError, match=r"at most 1048576 bytes of arrays, got 1600"):
        ArrayArchive(path, MIB).read(["a", "b"])


def test_archives_that_numpy_does_not_write(tmp_path: Path) -> None:
    squeezed = _archive(tmp_path / "bzip2.npz", {"a": _good(3)}, zipfile.ZIP_BZIP2)
    with pytest.raises(FocusError, match="its compression 12 is not known"):
        ArrayArchive(squeezed, MIB).read(["a"])
    data = _archive(tmp_path / "two.npz", {"a": _good(3), "b": _good(4)}).read_bytes()
    (tmp_path / "two.npz").write_bytes(data.replace(b"b.npy", b"a.npy"))
    with pytest.raises(FocusError, match="two arrays are called 'a'"):
        ArrayArchive(tmp_path / "two.npz", MIB)
    good = _archive(tmp_path / "crc.npz", {"a": _good(3)})
    data = bytearray(good.read_bytes())
    data[data.index(bytes(24))] ^= 1  # the first number
    good.write_bytes(data)
    with pytest.raises(FocusError, match=r"crc\.npz: .*the array a: .*CRC"):
        ArrayArchive(good, MIB).read(["a"])


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(17), b"text"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FocusError, match=r"a\.npz: (expected an \.npz file of plain arrays|.*empty)"):
        ArrayArchive(tmp_path / "a.npz", MIB)
