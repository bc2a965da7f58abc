"""Files with a checksum over all of their bytes: a single changed bit, wherever it is, is noticed when they are read.

The checksum is SHA-256 in hexadecimal, the last entry of a JSON object, ``"checksum": "..."``, taken while its 64
digits were zeros. What is covered are bytes as they are stored, names, types and shapes of tensors among them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from torch import Tensor

_BLANK = b"0" * 64
_PLACE = re.compile(rb'checksum\\?": \\?"([0-9a-f]{64})\\?"')
_SEAL_AT_THE_END = re.compile(rb'"[0-9a-f]{64}"\s*\}\s*$')
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool", "U8": "uint8"}
_DTYPES |= {"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"}
"""Names of safetensors -> names of torch."""


class DamagedError(ValueError):
    """Bytes that are not as they were written; the message is a bare reason."""


def seal_json(values: Mapping[str, Any], *, indent: int | None = None) -> str:
    """A JSON object with its checksum. Raises `ValueError` for numbers that are not finite."""
    text = json.dumps({**values, "checksum": _BLANK.decode()}, allow_nan=False, indent=indent)
    return _sealed(text.encode("ascii")).decode("ascii")


def open_json(text: str | bytes) -> dict[str, Any]:
    """The object of `seal_json`, with or without an end of line, without the checksum.

    Raises:
        DamagedError: no JSON object, without a checksum, or with another one.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    values = parse_object(data)
    if "checksum" not in values:
        raise DamagedError("it has no checksum")
    data = data.removesuffix(b"\n")
    if not _is_sealed(data, len(data)):
        raise DamagedError("its contents do not match their checksum")
    del values["checksum"]
    return values


def open_any_json(data: bytes) -> dict[str, Any]:
    """A JSON object that may be older than checksums, without its checksum.

    Where it has one, or ends as if it had, the checksum is compared: no single changed bit hides that there was one.

    Raises:
        DamagedError: as `open_json` and `parse_object`.
    """
    return open_json(data) if b'"checksum"' in data or _SEAL_AT_THE_END.search(data[-100:]) else parse_object(data)


def seal_tensors(tensors: Mapping[str, Tensor], key: str, values: Mapping[str, Any]) -> bytes:
    """A safetensors file whose metadata have one entry, JSON with the checksum of the whole file.

    Args:
        tensors: on the CPU, contiguous.
        key: of the metadata.
        values: what they say, JSON values.

    Raises:
        ValueError: a number among the values is not finite.
    """
    import safetensors.torch

    text = json.dumps({**values, "checksum": _BLANK.decode()}, allow_nan=False)
    data = safetensors.torch.save(dict(tensors), {key: text})
    return _sealed(data, 8 + int.from_bytes(data[:8], "little"))


def open_tensors(data: bytes, key: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Values and tensors of a safetensors file.

    Where the values have a text as their checksum, it is compared; the text itself stays among them. Callers that know
    older formats look at it; all others demand it.

    Raises:
        DamagedError: cut short, no safetensors file, without the entry, or with another checksum.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 10 or end > len(data):
        raise DamagedError("it is cut short, or no safetensors file")
    header = parse_object(data[8:end])
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get(key), str):
        raise KeyError(key)
    values = parse_object(metadata[key].encode("utf-8", "surrogatepass"))
    if isinstance(values.get("checksum"), str) and not _is_sealed(data, end):
        raise DamagedError("its contents do not match their checksum")
    return values, read_tensors(data)


def read_tensors(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in memory of their own. Raises `DamagedError`."""
    import safetensors
    import torch

    deserialize: Any = safetensors.deserialize
    tensors = {}
    try:
        for name, entry in deserialize(data):
            if entry["dtype"] not in _DTYPES:
                raise DamagedError(
                    f"{name[:80]} has the type {entry['dtype']!r}; expected one of {', '.join(sorted(_DTYPES))}"
                )
            dtype = getattr(torch, _DTYPES[entry["dtype"]])
            # safetensors 0.4 itself cannot load tensors without elements.
            flat = torch.frombuffer(entry["data"], dtype=dtype) if entry["data"] else torch.empty(0, dtype=dtype)
            tensors[name] = flat.reshape(entry["shape"])
    except DamagedError:
        raise
    except (safetensors.SafetensorError, ValueError, RuntimeError, TypeError, OverflowError) as error:
        raise DamagedError(str(error).splitlines()[0][:200]) from error
    return tensors


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object of finite numbers. Raises `DamagedError` for anything else."""
    try:
        values = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"its JSON cannot be understood ({str(error).splitlines()[0]})") from error
    if not isinstance(values, dict):
        raise DamagedError("expected a JSON object")
    return values


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _sealed(data: bytes, end: int | None = None) -> bytes:
    start, stop = _place(data, len(data) if end is None else end)
    return b"".join((data[:start], _digest(data, start, stop), data[stop:]))


def _is_sealed(data: bytes, end: int) -> bool:
    try:
        start, stop = _place(data, end)
    except ValueError:
        return False
    return data[start:stop] == _digest(data, start, stop)


def _place(data: bytes, end: int) -> tuple[int, int]:
    """Where the digits are: the last place that looks like it, since the checksum is the last entry."""
    found = list(_PLACE.finditer(data, 0, end))
    if not found:
        raise ValueError("expected a checksum")
    return found[-1].span(1)


def _digest(data: bytes, start: int, stop: int) -> bytes:
    view, digest = memoryview(data), hashlib.sha256()
    for part in (view[:start], _BLANK, view[stop:]):
        digest.update(part)
    return digest.hexdigest().encode()
