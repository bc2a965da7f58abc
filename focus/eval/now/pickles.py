"""Pickles of plain values and of numpy's numbers, followed opcode by opcode: no object is built, nothing is called.

`pickle` builds whatever a file says; even restricted to numpy's own functions it lets a file hand numpy a pointer.
Here a file can make numbers, strings, lists, tuples and dictionaries of them, and arrays of numbers become lists.
"""

from __future__ import annotations

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | tuple[Value, ...] | dict[str, Value] | None"

_MOST_NUMBERS = 1024
"""Of one array."""
_TYPES = frozenset(
    f"{kind}{size}" for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8)}.items() for size in sizes
)


class _Global:
    """A function or class that the file names."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module.replace("numpy._core", "numpy.core"), name
        if (self.module, name) not in _KNOWN:
            raise ValueError(f"{module}.{name} is neither an array nor a number"[-120:])


class _Type:
    """A dtype: of numbers, or of objects."""

    def __init__(self, code: Value) -> None:
        self.code, self.order = _text(code), "="
        if self.code not in _TYPES and self.code not in ("O", "O4", "O8"):
            raise ValueError(f"numpy's type {self.code[:20]!r} is no number")

    def build(self, state: Any) -> None:
        """``(version, byte order, ...)``; what follows belongs to types that are not known here."""
        order = _text(state[1]) if isinstance(state, tuple) and len(state) >= 2 else ""
        if order not in ("<", ">", "|", "="):
            raise ValueError("the state of a type of numpy")
        self.order = "=" if order == "|" else order

    def numbers(self, data: Any) -> list[Value]:
        """The numbers of some bytes."""
        if not isinstance(data, bytes) or not self.code.startswith(("f", "i", "u")):
            raise ValueError("an array whose contents are no numbers")
        if len(data) % int(self.code[1:]) or len(data) > 8 * _MOST_NUMBERS:
            raise ValueError(f"an array of {len(data)} bytes of {self.code}")
        plain: list[Value] = np.frombuffer(data, dtype=np.dtype(self.order + self.code)).tolist()
        return plain


class _Array(list[Any]):
    """An array: its numbers or objects in a row."""

    def build(self, state: Any) -> None:
        """``(version, shape, type, is Fortran's order, bytes or list)``; the order means nothing here: see `_flat`."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Type):
            raise ValueError("the state of an array of numpy")
        self[:] = _flat(state[4], state[2], state[1])


def _flat(data: Any, dtype: _Type, shape: Any) -> list[Value]:
    """The contents of an array of at most one long dimension."""
    if not isinstance(shape, tuple) or len(shape) > 4 or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError("the shape of an array of numpy")
    if dtype.code.startswith("O"):
        if not isinstance(data, list):
            raise ValueError("an array whose objects are no list")
        values = data
    else:
        values = dtype.numbers(data)
    if math.prod(shape) != len(values) or max((*shape, 1)) != max(len(values), 1):
        raise ValueError(f"an array of {len(values)} values of shape {shape}"[:120])
    return values


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if not isinstance(kind, _Global) or kind.name != "ndarray":
        raise ValueError("an array of no kind that is known")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, *_: Any) -> _Array:
    if not isinstance(dtype, _Type):
        raise ValueError("an array without a type")
    return _Array(_flat(data, dtype, shape))


def _scalar(dtype: Any, data: Any) -> Value:
    if not isinstance(dtype, _Type) or len(values := dtype.numbers(data)) != 1:
        raise ValueError("a number of numpy that is none")
    return values[0]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes in pickles that Python 2 can read."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in an encoding that is not known")
    return text.encode("latin-1")


_KNOWN: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): lambda code, *_: _Type(code),
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}


def _text(value: Any) -> str:
    """Python 2 wrote its strings as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError("expected a string")
    return value


_OPCODES: dict[str, Any] = {opcode.code: opcode for opcode in pickletools.opcodes}


_QUOTED = re.compile(rb"""["'](?:[^\\]|\\[\\'"nrt]|\\x[0-9a-f]{2})*["']""")
"""What Python's repr makes of a string."""


def _opcodes(file: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """`pickletools.genops`, which cannot read the quoted strings of Python 2 that are no ASCII, and warns of names."""
    while code := file.read(1):
        opcode = _OPCODES.get(code.decode("latin-1"))
        if opcode is None:
            raise ValueError(f"{code!r} starts nothing in a pickle")
        if opcode.name == "STRING":
            quoted = file.readline().rstrip(b"\n")
            if len(quoted) < 2 or quoted[-1:] != quoted[:1] or _QUOTED.fullmatch(quoted) is None:
                raise ValueError("a string that is not as Python 2 writes it")
            yield "STRING", codecs.escape_decode(quoted[1:-1])[0]
        elif opcode.name == "GLOBAL":
            yield "GLOBAL", b" ".join((file.readline().rstrip(b"\n"), file.readline().rstrip(b"\n"))).decode("utf-8")
        else:
            yield opcode.name, None if opcode.arg is None else opcode.arg.reader(file)
    raise ValueError("it is cut short")


_LITERALS = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    ]
)
_BYTES = frozenset(["BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"])
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack, the marks in it, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def since_mark(self) -> list[Any]:
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def take(self, count: int) -> list[Any]:
        # What lies below a mark belongs to somebody else.
        if len(self.stack) - (self.marks[-1] if self.marks else 0) < count:
            raise ValueError("a pickle that takes more than there is")
        values = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return values

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"a pickle that changes something else than a {kind.__name__}")
        return self.stack[-1]

    def set_items(self, values: list[Any]) -> None:
        target = self.top(dict)
        if len(values) % 2:
            raise ValueError("a dictionary with a key too many")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_text(key)] = value

    def step(self, name: str, argument: Any) -> None:
        """Follows one opcode."""
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _BYTES:
            stack.append(argument.encode("latin-1") if isinstance(argument, str) else bytes(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(self.take(_TUPLES[name])))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("TUPLE", "LIST"):
            values = self.since_mark()
            stack.append(tuple(values) if name == "TUPLE" else values)
        elif name == "DICT":
            values = self.since_mark()
            stack.append({})
            self.set_items(values)
        elif name in ("APPEND", "APPENDS"):
            values = self.take(1) if name == "APPEND" else self.since_mark()
            self.top(list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            self.set_items(self.take(2) if name == "SETITEM" else self.since_mark())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = self.top(object)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else map(_text, self.take(2))
            stack.append(_Global(module, attribute))
        elif name == "REDUCE":
            function, arguments = self.take(2)
            if not isinstance(function, _Global) or not isinstance(arguments, tuple):
                raise ValueError("a pickle that calls what is no function")
            made = _KNOWN[function.module, function.name]
            if made is None:
                raise ValueError(f"{function.name} is not called here")
            stack.append(made(*arguments))
        elif name == "BUILD":
            (state,) = self.take(1)
            if not stack or not isinstance(stack[-1], (_Array, _Type)):
                raise ValueError("a pickle that changes what is neither an array nor a type of numpy")
            stack[-1].build(state)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"{name} has no place in a pickle of numbers")


def parse_numbers(file: io.BytesIO) -> Value:
    """What a pickle holds, of any protocol up to 5, written by Python 2 or 3 and any numpy.

    Strings of Python 2 are bytes; those that are keys become strings. Arrays of at most one long dimension are lists of
    their numbers or objects, byte order minded.

    Args:
        file: at the start of the pickle. Its reader limits its size, and with it what can be built of it.

    Raises:
        ValueError, LookupError, TypeError, OverflowError: damaged, or anything else than plain values and numbers.
    """
    machine = _Machine()
    for name, argument in _opcodes(file):
        if name == "STOP":
            (value,) = machine.take(1)
            if isinstance(value, (_Global, _Type)):
                raise ValueError("a pickle of no value")
            result: Value = list(value) if isinstance(value, _Array) else value
            return result
        machine.step(name, argument)
    raise ValueError("it is cut short")
