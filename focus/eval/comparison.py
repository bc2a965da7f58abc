"""Methods against each other out of files of results: means with intervals, and paired differences to one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError
from focus.eval.results import Result
from focus.eval.statistics import Interval, paired_bootstrap

VALUES = ("accuracy", "precision", "recall", "f1", "outlier_iou", "shape_error_mm", "appearance_rmse")
"""What is compared, where the methods have it."""


@dataclass(frozen=True)
class Cell:
    """One value of one method on one half of a subset, over its training seeds."""

    mean: Interval
    """Over pictures, and over runs where there are several, with its 95% bootstrap interval."""
    deviation: float
    """Standard deviation over pictures."""
    difference: Interval | None
    """Method - reference, paired by picture and seed; None for the reference itself."""


@dataclass(frozen=True)
class Comparison:
    """All methods on one subset."""

    subset: str
    version: int
    digest: str
    pictures: int
    seeds: Mapping[str, tuple[int, ...]]
    """Method -> training seeds."""
    reference: str
    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    """Method -> half -> one of `VALUES` that it has."""
    notes: tuple[str, ...] = ()
    """What the numbers are without, for people."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subset": self.subset,
            "version": self.version,
            "digest": self.digest,
            "pictures": self.pictures,
            "reference": self.reference,
            "notes": list(self.notes),
            "seeds": {method: list(seeds) for method, seeds in self.seeds.items()},
            "methods": {
                method: {
                    half: {
                        value: {
                            **cell.mean._asdict(),
                            "std": cell.deviation,
                            "difference": None if cell.difference is None else cell.difference._asdict(),
                        }
                        for value, cell in row.items()
                    }
                    for half, row in halves.items()
                }
                for method, halves in self.cells.items()
            },
        }


def compare(results: Sequence[Result], reference: str | None = None) -> list[Comparison]:
    """Compares all methods of some results, subset by subset.

    Files that several runs append to may hold results on more than one test set of a name (another number of faces, one
    more true mask). Those of test sets on which only some of the methods were measured are left out, and named; where
    there are several with all methods, each is compared by itself.

    Args:
        results: of any number of files. A method that does not learn may have seed 0 alone where others have several:
            its one result is paired with each of theirs.
        reference: method that the others are compared with; None: the first of each subset, which also stands in where
            a subset has no such method.

    Raises:
        FocusError: two results of one method, seed and test set; methods that were never measured on one test set, or
            with other halves; nothing but single pictures; no such reference.
    """
    subsets: dict[str, list[Result]] = {}
    for result in results:
        subsets.setdefault(result.subset, []).append(result)
    if reference is not None and all(result.method != reference for result in results):
        names = ", ".join(dict.fromkeys(result.method for result in results))
        raise FocusError(f"compare: reference: expected one of {names}, got {reference!r}")
    single = [subset for subset, part in subsets.items() if max(len(result.names) for result in part) < 2]
    if len(single) == len(subsets):
        raise FocusError(
            f"compare: got one picture of {', '.join(single) or 'nothing'}; expected several: one says nothing about "
            "the others"
        )
    found: list[Comparison] = []
    for subset in [subset for subset in subsets if subset not in single]:
        part = subsets[subset]
        complete, rest = _by_test_set(part)
        notes = [
            f"left out: {result.method} (seed {result.seed}) on another test set, digest {result.digest[:12]}, "
            f"{len(result.names)} pictures"
            for result in rest
        ]
        if not found:
            notes += [f"left out: {other}, one picture" for other in single]
        found += [_compare(subset, results, reference, notes) for results in complete]
    return found


def _by_test_set(results: Sequence[Result]) -> tuple[list[list[Result]], list[Result]]:
    """Results of one subset by test set, where all its methods were measured on it; and the others.

    Where no test set has all methods everything is one group, which `runs_of` refuses and says why.
    """
    sets: dict[tuple[int, str], list[Result]] = {}
    for result in results:
        sets.setdefault((result.version, result.digest), []).append(result)
    methods = {result.method for result in results}
    complete = [part for part in sets.values() if {result.method for result in part} == methods]
    rest = [result for part in sets.values() if part not in complete for result in part]
    return (complete, rest) if complete else ([list(results)], [])


def runs_of(results: Sequence[Result]) -> dict[str, dict[int, Result]]:
    """Results of one subset as method -> training seed -> result.

    Raises:
        FocusError: two results of one method and seed, results on different test sets, or with other halves.
    """
    first = results[0]
    methods: dict[str, dict[int, Result]] = {}
    for result in results:
        if (result.version, result.digest) != (first.version, first.digest) or result.names != first.names:
            raise FocusError(
                f"{first.subset}: {result.method} (seed {result.seed}) was measured on another test set than "
                f"{first.method} (version {result.version} and {first.version}, digest {result.digest[:12]} and "
                f"{first.digest[:12]}, {len(result.names)} and {len(first.names)} pictures). Run both on the same one."
            )
        if result.occluded != first.occluded:
            raise FocusError(
                f"{first.subset}: {result.method} (seed {result.seed}) and {first.method} disagree about which "
                "pictures are occluded; run both with the same list of occluded photos"
            )
        runs = methods.setdefault(result.method, {})
        if result.seed in runs:
            raise FocusError(
                f"{first.subset}: {result.method} comes twice with seed {result.seed}; give each result once, under a "
                "name and seed of its own"
            )
        runs[result.seed] = result
    return methods


def _compare(subset: str, results: Sequence[Result], reference: str | None, notes: Sequence[str]) -> Comparison:
    first, methods = results[0], runs_of(results)
    chosen = reference if reference in methods else next(iter(methods))
    halves = [half for half in first.halves if first.half(half).sum() > 1]
    cells = {
        method: {
            half: {value: _cell(runs, methods[chosen], method == chosen, value, half) for value in _shared(runs)}
            for half in halves
        }
        for method, runs in methods.items()
    }
    notes = [*notes, *(f"left out: {half}, one picture" for half in first.halves if half not in halves)]
    if reference not in (None, chosen):
        notes.append(f"{reference} was not measured here: compared with {chosen}")
    seeds = {method: tuple(sorted(runs)) for method, runs in methods.items()}
    return Comparison(
        subset=subset,
        version=first.version,
        digest=first.digest,
        pictures=len(first.names),
        seeds=seeds,
        reference=chosen,
        cells=cells,
        notes=(*notes, *_notes_on_seeds(seeds, chosen)),
    )


def _notes_on_seeds(seeds: Mapping[str, tuple[int, ...]], reference: str) -> list[str]:
    """How `_pairs` treats methods that have other seeds than the reference."""
    notes, alone = [], []
    for method, own in seeds.items():
        if own == seeds[reference]:
            continue
        if (0,) in (own, seeds[reference]):
            alone.append(method if own == (0,) else reference)
            continue
        both = sorted(set(own) & set(seeds[reference]))
        notes.append(
            f"{method} has the seeds {_listed(own)}, {reference} {_listed(seeds[reference])}: the difference "
            + (f"is that of {_listed(both)}" if both else "is left out, since they share none")
        )
    if alone:
        names = ", ".join(dict.fromkeys(alone))
        notes.append(f"one result is paired with every run of the other: {names} (seed 0 alone)")
    return notes


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _shared(runs: Mapping[int, Result]) -> list[str]:
    return [value for value in VALUES if all(value in run.values for run in runs.values())]


def _cell(
    runs: Mapping[int, Result], reference: Mapping[int, Result], is_reference: bool, value: str, half: str
) -> Cell:
    columns = [run.of(value, half) for run in runs.values()]
    zeros = [np.zeros_like(column) for column in columns]
    mean = paired_bootstrap(columns, zeros, resample_runs=len(columns) > 1, same_images=True)
    pairs = [] if is_reference else [pair for pair in _pairs(runs, reference) if value in pair[1].values]
    difference = None
    if pairs:
        difference = paired_bootstrap(
            [a.of(value, half) for a, _ in pairs],
            [b.of(value, half) for _, b in pairs],
            resample_runs=len(pairs) > 1,
            same_images=True,
        )
    deviation = float(np.mean([column.std() for column in columns]))
    return Cell(mean, deviation, difference)


def _pairs(runs: Mapping[int, Result], reference: Mapping[int, Result]) -> list[tuple[Result, Result]]:
    if list(runs) == [0] or list(reference) == [0]:  # what does not learn has seed 0 alone
        return [(a, b) for a in runs.values() for b in reference.values()]
    return [(runs[seed], reference[seed]) for seed in sorted(runs.keys() & reference.keys())]


@dataclass(frozen=True)
class YawBin:
    """Faces whose yaw is in [`low`, `low` + `width`) degrees."""

    low: float
    width: float
    count: int
    """Of faces."""
    mean: float
    deviation: float
    """Standard deviation over faces."""
    error: float | None
    """Standard error of the mean, s / sqrt(n) with the deviation s of a sample; None for one face, which has none."""


def by_yaw(
    runs: Sequence[Result], value: str = "shape_error_mm", half: str = "overall", width: float = 10.0
) -> list[YawBin]:
    """A value over bins of the true yaw (Fig. 3 of the paper); bins without faces are left out.

    Args:
        runs: of one method on the same pictures. Each picture counts once, with its mean over the runs: the same face
            in three runs is not three faces.
        value: one of `benchmark.IMAGE_VALUES`.
        half: "occluded", "unoccluded" or "overall".
        width: of a bin, degrees; bins begin at multiples of it.

    Raises:
        FocusError: no runs, other pictures in each, a value or a yaw that they have not, or a width that is not
            positive.
    """
    if not runs or not width > 0:
        raise FocusError(f"by_yaw: expected runs and a positive width, got {len(runs)} runs and {width}")
    unknown = sorted({f"{run.method}, {run.subset}" for run in runs if not run.yaw})
    if unknown:
        raise FocusError(f"by_yaw: expected pictures whose yaw is known, got none for {'; '.join(unknown)}")
    runs_of([replace(run, seed=number) for number, run in enumerate(runs)])  # refuses other pictures
    yaw = np.asarray(runs[0].yaw)[runs[0].half(half)]
    values: NDArray[np.float64] = np.mean([run.of(value, half) for run in runs], axis=0)
    number: NDArray[np.int64] = np.floor(yaw / width).astype(np.int64)
    bins = []
    for k in np.unique(number):
        inside = values[number == k]
        deviation = float(inside.std())
        error = deviation / float(np.sqrt(len(inside) - 1)) if len(inside) > 1 else None
        bins.append(YawBin(float(k * width), width, len(inside), float(inside.mean()), deviation, error))
    return bins


def by_occluder(result: Result, value: str) -> dict[str, tuple[int, float]]:
    """Kind of occluder -> (number of pictures, mean of a value); pictures with two kinds count for both; empty
    where the kinds are not known.
    """
    values = np.asarray(result.values[value])
    kinds = [kind.split("+") for kind in result.occluder]
    names = sorted({kind for entry in kinds for kind in entry})
    rows = {}
    for name in names:
        chosen = np.array([name in entry for entry in kinds])
        rows[name] = (int(chosen.sum()), float(values[chosen].mean()))
    return rows
