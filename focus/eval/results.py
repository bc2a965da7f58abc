"""Files of results that several runs append to, and what is read out of them.

One line of JSON for each method, training seed and subset of the test set, with the values of every picture: what
paired comparisons between methods of different runs need. Pictures are told apart by the digest of the test set. Each
line ends with a checksum; lines of before checksums are read, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus import limits
from focus.errors import FocusError
from focus.eval.benchmark import HALVES, IMAGE_VALUES, Evaluation
from focus.files import read_text, write_files
from focus.sealed import DamagedError, open_any_json, seal_json


@dataclass(frozen=True)
class Result:
    """One method on one subset of the test set: N pictures."""

    method: str
    """Name, as tables show it."""
    seed: int
    """Of the training run."""
    subset: str
    """Of the test set, `focus.eval.testset.SUBSETS`; or the name of a folder of photos."""
    version: int
    """Of the test set; 0: photos."""
    digest: str
    """Of the test set, or of the photos and their true masks."""
    commit: str
    """State of the source that computed it."""
    names: tuple[str, ...]
    """``[N]``, of the pictures."""
    occluded: tuple[bool, ...]
    """``[N]``; empty where nobody said it of the photos: then there are no halves."""
    occluder: tuple[str, ...]
    """``[N]``, kind of what is in front of the face; empty: not known."""
    yaw: tuple[float, ...]
    """``[N]`` degrees; empty: not known."""
    values: Mapping[str, tuple[float, ...]]
    """One of `benchmark.IMAGE_VALUES` -> ``[N]``; values that a method has not are left out."""

    @property
    def key(self) -> tuple[str, int, str, int, str]:
        """What names a result in a file: a later one takes the place of an earlier one."""
        return self.method, self.seed, self.subset, self.version, self.digest

    def of(self, value: str, half: str = "overall") -> NDArray[np.float64]:
        """The values of the pictures of a half of the test set.

        Raises:
            FocusError: the result has no such value.
        """
        if value not in self.values:
            raise FocusError(f"results: {self.method}, {self.subset}: has no {value!r}, only {', '.join(self.values)}")
        return np.asarray(self.values[value], dtype=np.float64)[self.half(half)]

    def half(self, half: str) -> NDArray[np.bool_]:
        """``[N]``, which pictures belong to "occluded", "unoccluded" or "overall"."""
        everything = np.ones(len(self.names), dtype=bool)
        if not self.occluded:  # not known: no picture is said to be of either half
            return {"occluded": ~everything, "unoccluded": ~everything, "overall": everything}[half]
        occluded = np.asarray(self.occluded, dtype=bool)
        return {"occluded": occluded, "unoccluded": ~occluded, "overall": everything}[half]

    @property
    def halves(self) -> tuple[str, ...]:
        """Those of `benchmark.HALVES` that have pictures."""
        return tuple(half for half in HALVES if self.half(half).any())


def from_evaluation(
    evaluation: Evaluation, *, seed: int, subset: str, version: int, digest: str, commit: str
) -> list[Result]:
    """A result for each method of an evaluation."""
    shared: dict[str, Any] = {
        "seed": seed,
        "subset": subset,
        "version": version,
        "digest": digest,
        "commit": commit,
        "names": evaluation.names,
        "occluded": tuple(evaluation.occluded.tolist()),
        "occluder": evaluation.occluder,
        "yaw": tuple(np.round(evaluation.yaw, 3).tolist()),
    }
    return [
        Result(
            method=method,
            **shared,
            values={name: tuple(np.round(column, 6).tolist()) for name, column in values.items()},
        )
        for method, values in evaluation.values.items()
    ]


def append_results(path: Path, results: Sequence[Result]) -> Path:
    """Adds results to a file, or makes it; those of the same method, seed and test set are replaced.

    Another process that does the same at this moment is waited for.

    Raises:
        FocusError: the file holds something else or cannot be written, or a result has values that are not finite or do
            not fit its names.
    """
    for number, result in enumerate(results):
        _check(result, f"result {number + 1}")
    with _alone(path.parent):
        kept = {result.key: result for result in known_results(path)}
        kept.update((result.key, result) for result in results)
        return write_results(path, list(kept.values()))


def write_results(path: Path, results: Sequence[Result]) -> Path:
    """Writes a file of these results and no others, in place of one of before.

    Raises:
        FocusError: the file system refused; a file of before is untouched.
    """
    text = "".join(seal_json(asdict(result)) + "\n" for result in results)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_files({path: text.encode()})
    except OSError as error:
        raise FocusError(
            f"{path}: results cannot be written: {error.strerror or error}. Make room, or choose another folder"
        ) from error
    return path


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits for other processes that add results to files of this folder. The lock is the folder's: it leaves no file,
    and ends with the process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise FocusError(f"{folder}: cannot hold results ({error.strerror or error}); choose another folder") from error
    try:
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def known_results(path: Path) -> list[Result]:
    """`read_results` of a file that results are to be added to: none where it is not there yet."""
    return read_results(path) if path.exists() else []


def read_results(path: Path) -> list[Result]:
    """All results of a file.

    Raises:
        FocusError: no such file, or a line that is no result, named.
    """
    text = read_text(path, limits.TABLE_FILE)
    # Lines end with a line feed, and not with whatever else Unicode may call a line in a name.
    results = [_parse(line, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not results:
        raise FocusError(f"{path}: expected lines of results, found none")
    return results


def _parse(line: str, place: str) -> Result:
    try:
        content = json.loads(line)
        values = {name: tuple(map(float, column)) for name, column in content["values"].items()}
        plain = {field.name: content[field.name] for field in fields(Result) if field.name in content}
        lists = {name: tuple(content[name]) for name in ("names", "occluded", "occluder")}
        yaw = tuple(map(float, content["yaw"]))
        result = Result(**{**plain, **lists, "yaw": yaw, "values": values})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FocusError(
            f"{place}: no result of this version of focus ({type(error).__name__}: {error}); "
            "delete the line, or move the file away"
        ) from error
    _check(result, place)
    try:  # last: what is wrong with a value tells more than that something was changed
        unknown = sorted(open_any_json(line.encode()).keys() - {field.name for field in fields(Result)})
        if unknown:
            raise DamagedError(f"unknown: {', '.join(unknown)}")
    except DamagedError as error:
        raise FocusError(
            f"{place}: {result.method}: damaged ({error}); delete the line, or move the file away"
        ) from error
    return result


def _check(result: Result, place: str) -> None:
    count = len(result.names)
    texts = (result.method, result.subset, result.digest, result.commit)
    numbers = (result.seed, result.version)
    if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
        raise FocusError(
            f"{place}: expected texts as method, subset, digest and commit and whole numbers as seed and version, got "
            f"{', '.join(map(repr, (*texts, *numbers)))}"
        )
    if count == 0:
        raise FocusError(f"{place}: {result.method}: expected at least one picture, got none")
    kinds: tuple[tuple[str, tuple[object, ...], type], ...] = (
        ("names", result.names, str),
        ("occluded", result.occluded, bool),
        ("occluder", result.occluder, str),
    )
    for name, entries, kind in kinds:
        if not all(type(entry) is kind for entry in entries):
            raise FocusError(f"{place}: {result.method}: {name}: expected entries of type {kind.__name__}")
    if not all(map(math.isfinite, result.yaw)):
        raise FocusError(f"{place}: {result.method}: yaw: expected finite degrees")
    if len(set(result.names)) != count:
        twice = sorted({name for name in result.names if result.names.count(name) > 1})
        # The two halves of a synthetic set show the same faces: a name comes once in each.
        pairs = list(zip(result.names, result.occluded, strict=False))
        if not pairs or len(set(pairs)) != len(pairs):
            raise FocusError(f"{place}: {result.method}: pictures of the same name: {', '.join(twice[:5])}")
    for name, column in (("occluded", result.occluded), ("occluder", result.occluder), ("yaw", result.yaw)):
        if len(column) not in (0, count):
            raise FocusError(f"{place}: {result.method}: {name}: expected {count} entries, got {len(column)}")
    for name, values in result.values.items():
        if name not in IMAGE_VALUES:
            raise FocusError(f"{place}: {result.method}: unknown value {name!r}; expected {', '.join(IMAGE_VALUES)}")
        if len(values) != count or not all(map(math.isfinite, values)):
            raise FocusError(f"{place}: {result.method}: {name}: expected {count} finite numbers")
