"""Files made to do harm, or that are not what their names say, handed to every reader: refused by name, in time."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import signal
import socket
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fuzz_files import READERS
from torture_outcome import Outcome, finish, forked, warm_up

MEMORY = 3 << 30
"""Bytes of address space that a reader may take beyond what the imports have."""
SECONDS = 40
WRAPPED = ("npz-array", "weights-pickle")
"""Readers that put the bytes into a good container first: nothing to hand a FIFO to."""
LISTS = ("names", "now-images")
"""Readers of lists of names: any text is one. What it names is looked for, and not found, by others."""


class _Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def _zip_bomb(name: str, size: int) -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open(name, "w") as member,
    ):
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return stream.getvalue()


def _npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npz(**arrays: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in arrays.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def _safetensors(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def contents(canary: Path) -> dict[str, bytes]:
    """Kind -> bytes. `canary` is a file that appears if any of them is run."""
    pickled = {f"a pickle of protocol {n} that runs a command": pickle.dumps(_Canary(canary), n) for n in (0, 2, 5)}
    objects = io.BytesIO()
    evil = np.empty(1, dtype=object)
    evil[0] = _Canary(canary)
    np.save(objects, evil)
    enormous = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    structured = "{'descr': [('a', '<f8', (100000, 100000))], 'fortran_order': False, 'shape': (1,), }"
    torch_zip = io.BytesIO()
    with zipfile.ZipFile(torch_zip, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Canary(canary), 2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    entities = "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    laughs = f'<?xml version="1.0"?><!DOCTYPE p [<!ENTITY e0 "ha">{entities}]><p>&e9;</p>'
    ply = (
        "ply\nformat {} 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    noise = [np.random.default_rng(seed).bytes(5000) for seed in range(3)]
    png = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\x00\x00\x00" + bytes(4)
    empty = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 3), }")
    of_objects = objects.getvalue()
    backwards = {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}
    vast = {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}
    return {
        "nothing": b"",
        "one byte": b"\x00",
        "zeros": bytes(100_000),
        "noise": noise[0] * 20,
        "a web page in place of the file": b"<!DOCTYPE html><html><body>404: Not found</body></html>",
        "a pointer of git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n%%EndComments\nshowpage\n%%EOF\n",
        "PDF": b"%PDF-1.4\n1 0 obj<</OpenAction<</S/Launch/F(/bin/sh)>>>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n",
        "SVG that names a file": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "HDF5 magic, then noise": b"\x89HDF\r\n\x1a\n" + noise[1],
        "MATLAB header, then noise": b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + noise[2],
        "PNG of 2^31 by 2^31 pixels": png,
        "TIFF whose directory names itself": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
        "gzip of a GiB": gzip.compress(bytes(1 << 30), 9, mtime=0),
        "zip of a GiB as an array": _zip_bomb("mean.npy", 1 << 30),
        "zip with names that leave the folder": _npz(**{"../../mean": empty}),
        "an array of objects": of_objects,
        "an array of 10^12 rows": _npy(enormous),
        "an array of enormous items": _npy(structured),
        "an array header that is code": _npy("__import__('os').system('true')"),
        "an array header nested too deep": _npy("(" * 60 + ")" * 50),
        "an archive of arrays of 10^12 rows": _npz(**dict.fromkeys(("mean", "identity", "v_template"), _npy(enormous))),
        "an archive of objects": _npz(**dict.fromkeys(("mean", "v_template", "shapedirs", "f"), of_objects)),
        "safetensors with a header of 2^63 bytes": struct.pack("<Q", 1 << 63) + b"{}",
        "safetensors whose tensor ends before it begins": _safetensors({"a": backwards}),
        "safetensors of an enormous shape": _safetensors({"a": vast}, bytes(8)),
        "safetensors with nested metadata": _safetensors({"__metadata__": {"focus": "[" * 100_000}}),
        "a torch archive that runs a command": torch_zip.getvalue(),
        "JSON nested 100,000 deep": b"[" * 100_000,
        "JSON with an enormous number": b'{"format": 1' + b"0" * 100_000 + b"}",
        "XML with a billion laughs": laughs.encode(),
        "XML that reads a file": b'<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>&x;</p>',
        "one line of 30 MB": b"1," * 15_000_000,
        "a million lines without anything": b",\n" * 1_000_000,
        "text with NUL": b"a.jpg,1,2,3\x00,4\n",
        "UTF-16": "a.jpg,1,2,3,4,5,6,7,8,9\n".encode("utf-16"),
        "PLY of 4 billion vertices": ply.format("binary_little_endian", 4_294_967_295).encode(),
        "PLY of minus one vertex": ply.format("ascii", -1).encode() + b"3 0 1 2\n",
        "OBJ whose face names vertex 10^18": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 1000000000000000000\n",
        "OBJ that names another file": b"mtllib /etc/passwd\nv 0 0 0\n",
        **pickled,
    }


def _special(path: Path, kind: str) -> None:
    """Something that is no ordinary file."""
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a link to nothing":
        path.symlink_to("missing")
    elif kind == "a file of 8 EiB without contents":
        with path.open("wb") as file:
            try:
                file.truncate((1 << 63) - (1 << 20))
            except OSError:  # the file system holds less
                file.truncate(1 << 43)
    else:
        path.symlink_to(kind.split()[-1])


SPECIAL = (
    "a FIFO",
    "a socket",
    "a folder",
    "a link to itself",
    "a link to nothing",
    "a file of 8 EiB without contents",
    "a link to /dev/zero",
    "a link to /dev/tty",
    "a link to /dev/null",
    "a link to /proc/kmsg",
)


def run(folder: Path, seed: int, seconds: float) -> list[Outcome]:
    """See the module; `seed` and `seconds` change nothing: the list is always the same, and tried once."""
    warm_up()
    canary = folder / "canary"
    programs = folder / "bin"
    programs.mkdir()
    for name in ("gs", "gswin32c", "convert", "ffmpeg", "djpeg", "sh", "python"):
        (programs / name).write_text(f"#!/bin/sh\n/usr/bin/touch '{canary}'\n")
        (programs / name).chmod(0o755)
    files: dict[str, bytes | None] = {**contents(canary), **dict.fromkeys(SPECIAL)}
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    outcomes = []
    for name, reader in READERS.items():
        if name in WRAPPED:
            continue
        outcome = Outcome(f"hostile and foreign files as {name}")
        for kind, data in files.items():
            path = folder / f"hostile{reader.suffix}"
            if data is None:
                _special(path, kind)
            else:
                path.write_bytes(data)
            started = time.monotonic()
            code = finish(
                forked(_limited(lambda path=path, read=reader.read: _read(read, path)), folder / "output"), SECONDS
            )  # type: ignore[misc]
            told = (folder / "output").read_text(errors="replace").strip()
            takes = time.monotonic() - started
            happened = {2: "refused", 0: "read"}.get(code, "not as promised")
            problem = None
            if canary.exists():
                problem = f"{kind}: something was run"
                canary.unlink()
            elif code == -1000:
                problem = f"{kind}: not answered within {SECONDS} s"
            elif code == 0 and name not in LISTS:
                problem = f"{kind}: was taken for a good file"
            elif code not in (0, 2):
                problem = f"{kind}: exit {code} after {takes:.1f} s: {told[-300:]}"
            elif code == 2 and (path.name not in told or len(told) > 2000):
                problem = f"{kind}: a message of {len(told)} characters that does not name the file: {told[:200]}"
            outcome.add(happened if problem is None else "not as promised", problem)
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        outcomes.append(outcome)
    return outcomes


def _read(read: Callable[[Path], object], path: Path) -> int:
    from focus.errors import FocusError

    try:
        read(path)
    except FocusError as error:
        print(error)
        return 2
    return 0


def _limited(work: Callable[[], int]) -> Callable[[], int]:
    def limited() -> int:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, hard))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        return work()

    return limited
