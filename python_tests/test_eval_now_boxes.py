"""Face boxes of strangers: numbers of every numpy and Python are read, and nothing of a file is built or called."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focus.errors import FocusError
from focus.eval.now import read_box
from focus.eval.now.pickles import parse_numbers

SIDES = {"left": 10, "top": 20, "right": 110, "bottom": 140}
EXPECTED = [10, 20, 110, 140]


def _npy(pickled: bytes, shape: str = "()") -> bytes:
    """A .npy file of objects."""
    header = f"{{'descr': '|O', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + pickled


def _zero_dimensional(content: Any) -> np.ndarray:
    array = np.empty((), dtype=object)
    array[()] = content
    return array


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["float16", ">f4", "<f8", ">f8", "int16", ">i4", "<i8", "uint8", ">u2"])
def test_numbers_of_every_kind_in_every_protocol(tmp_path: Path, protocol: int, kind: str) -> None:
    numbers = np.array(EXPECTED).astype(kind)
    left, top, right, bottom = numbers
    forms = [
        {"left": left, "top": top.reshape(1), "right": right.reshape(()).copy(), "bottom": float(bottom), "score": 0.5},
        list(numbers),
        tuple(numbers),
        numbers,
        {"left": int(left), "top": [int(top)], "right": numbers[2:3], "bottom": bottom.reshape(1, 1)},
    ]
    for form in forms:
        (tmp_path / "box.npy").write_bytes(_npy(pickle.dumps(_zero_dimensional(form), protocol=protocol)))
        assert read_box(tmp_path / "box.npy").tolist() == EXPECTED
    np.save(tmp_path / "box.npy", numbers)
    assert read_box(tmp_path / "box.npy").tolist() == EXPECTED
    np.save(tmp_path / "box.npy", np.array(EXPECTED, dtype=object), allow_pickle=True)
    assert read_box(tmp_path / "box.npy").tolist() == EXPECTED


# {"left": numpy.float64(10), ...} in an array of no dimensions, as Python 2.7 with numpy 1.16 pickles it: strings are
# bytes, some of them not ASCII, and modules have their old names.
_PYTHON_2 = {
    0: (
        b"cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\ntp3\nS'b'\np4\ntp5\nRp6\n"
        b"(I1\n(tp7\ncnumpy\ndtype\np8\n(S'O8'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'|'\np12\nNNNI-1\nI-1\nI63\ntp13\nb"
        b"I00\n(lp14\n(dp15\nS'left'\np16\ncnumpy.core.multiarray\nscalar\np17\n(g8\n(S'f8'\np18\nI0\nI1\ntp19\nRp20\n"
        b"(I3\nS'<'\np21\nNNNI-1\nI-1\nI0\ntp22\nb" + rb"S'\x00\x00\x00\x00\x00\x00$@'" + b"\np23\ntp24\nRp25\n"
        b"sS'top'\np26\nL20L\nsS'right'\np27\ng17\n(g20\n" + rb"S'\x00\x00\x00\x00\x00\x80[@'" + b"\np28\ntp29\nRp30\n"
        b"sS'bottom'\np31\nF140\nsatp32\nb."
    ),
    2: (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        b"(K\x01)cnumpy\ndtype\nq\x04U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
        b"\x89]}(U\x04leftK\nU\x03topcnumpy.core.multiarray\nscalar\nq\x05h\x04U\x02f8K\x00K\x01\x87R(K\x03U\x01>NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08@4\0\0\0\0\0\0\x86RU\x05rightG@[\x80\0\0\0\0\0U\x06bottom"
        b"\x8a\x02\x8c\x00uatb."
    ),
}


@pytest.mark.parametrize("protocol", _PYTHON_2)
def test_what_python_2_wrote(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "box.npy").write_bytes(_npy(_PYTHON_2[protocol]))
    assert read_box(tmp_path / "box.npy").tolist() == EXPECTED
    # The same by pickle itself, or the bytes above would be no test.
    core = b"numpy._core" if hasattr(np, "_core") else b"numpy.core"
    loaded = pickle.loads(_PYTHON_2[protocol].replace(b"numpy.core", core), encoding="latin1").item()
    assert [float(loaded[side]) for side in SIDES] == EXPECTED


def _hostile() -> dict[str, bytes]:
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01)cnumpy\ndtype\n"
    objects = head + b"X\x02\x00\x00\x00O8\x89\x88\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    tail = b"tb\x89"
    return {
        "a pointer: a type of objects that does not say so": objects + b"K\x3d" + tail + b"C\x08AAAAAAAAtb.",
        "a pointer, with the flag": objects + b"K\x3f" + tail + b"C\x08AAAAAAAAtb.",
        "a type of other sizes": head + b"X\x04\0\0\0V999\x89\x88\x87R.",
        "a type that calls itself": head + b"h\x00\x89\x88\x87R.",
        "more numbers than bytes": b"cnumpy.core.numeric\n_frombuffer\n(C\x08AAAAAAAAcnumpy\ndtype\n"
        b"(C\x02f8tR(M\xff\xfftC\x01CtR.",
        "os.system": b"cos\nsystem\n(S'true'\ntR.",
        "getattr": b"c__builtin__\ngetattr\n.",
        "an instance": b"(inumpy\nndarray\n.",
        "a new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
        "an extension": b"\x80\x02\x82\x01.",
        "a persistent identifier": b"Pname\n.",
        "numpy.load": b"cnumpy\nload\n(S'x'\ntR.",
        "a billion numbers": head + b"X\x02\0\0\0f8\x89\x88\x87R\x8a\x05\0\0\0\0\x10\x85C\0tb.",
        "tuples within tuples, as a key": b"}" + b")" + b"\x85" * 60_000 + b"K\x01s.",
        "lists within lists": b"]" * 60_000 + b"a" * 59_999 + b".",
        "a list of itself": b"]q\0h\0h\0h\0h\0(h\0h\0h\0h\0e.",
        "a dictionary of itself": b"}q\0X\4\0\0\0lefth\0s.",
        "nothing": b"N.",
        "nothing at all": b".",
        "a key too many": b"}(K\1u.",
        "what is below a mark": b"K\1(\x85.",
        "a number of 60,000 digits": b"L" + b"9" * 60_000 + b"L\n.",
        "a text of 2 ** 62 bytes": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x3fx.",
        "an unknown opcode": b"\xff.",
        "a memo that is not there": b"h\7.",
        "no end": b"(" * 1000,
    }


@pytest.mark.parametrize("what", _hostile())
def test_what_is_no_number_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "box.npy").write_bytes(_npy(_hostile()[what]))
    with pytest.raises(FocusError, match=r"box\.npy: ") as caught:
        read_box(tmp_path / "box.npy")
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x93NUMPY\x01\0\xff\xff", "cannot be read as the box"),
        (_npy(b"", "(4,) + (__import__('os').abort(),)"), "header"),
        (b"\x93NUMPY\x01\0\x3a\0{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000,)}", "claims|header|cut"),
        (b"x" * 100_000, "box.npy: has 100,000 bytes, more than"),
    ],
)
def test_headers_that_claim_what_is_not_there(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "box.npy").write_bytes(content)
    with pytest.raises(FocusError, match=message):
        read_box(tmp_path / "box.npy")


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "box.npy")
    with pytest.raises(FocusError, match="FIFO"):
        read_box(tmp_path / "box.npy")


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda children: st.lists(children) | st.tuples(children, children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    ),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_plain_values_are_what_pickle_makes_of_them(value: Any, protocol: int) -> None:
    pickled = pickle.dumps(value, protocol=protocol)
    if b"c__builtin__\nbytes" in pickled:  # empty bytes before protocol 3, which no array has
        with pytest.raises(ValueError, match=r"__builtin__\.bytes is neither"):
            parse_numbers(io.BytesIO(pickled))
    else:
        assert parse_numbers(io.BytesIO(pickled)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from(sorted(_PYTHON_2)))
def test_any_bytes_end_in_a_value_or_a_plain_error(inserted: bytes, place: int, protocol: int) -> None:
    good = _PYTHON_2[protocol]
    before = set(sys.modules)
    for data in (inserted, good[:place] + inserted + good[place:], good[:place] + inserted + good[place + 8 :]):
        try:
            value = parse_numbers(io.BytesIO(data))
        except (ValueError, LookupError, TypeError, OverflowError):
            continue
        assert isinstance(value, bool | int | float | str | bytes | list | tuple | dict | None)
    assert set(sys.modules) == before
