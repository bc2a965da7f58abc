"""What the benchmark must show, checked with paired intervals over one or more runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from focus.errors import FocusError
from focus.eval.statistics import Interval, paired_bootstrap

LARGER_IS_BETTER = {
    "accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "outlier_iou": True,
    "shape_error_mm": False,
    "appearance_rmse": False,
}
LABELS = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "outlier_iou": "outlier IoU",
    "shape_error_mm": "shape error",
    "appearance_rmse": "appearance error",
}
UNITS = {"shape_error_mm": " mm"}

Verdict = Literal["holds", "open", "fails"]


@dataclass(frozen=True)
class Claim:
    """`first` is better than `second` in `metric` on a half of the test set ("overall": on both)."""

    first: str
    second: str
    metric: str
    half: str = "occluded"

    def __str__(self) -> str:
        where = "" if self.half == "occluded" else f", {self.half}"
        return f"{self.first} against {self.second}: {LABELS[self.metric]}{where}"


CLAIMS = (
    Claim("FOCUS", "Pretrained", "outlier_iou"),
    Claim("FOCUS", "Pretrained", "f1"),
    Claim("FOCUS", "MoFA", "appearance_rmse"),
    Claim("FOCUS", "MoFA", "shape_error_mm"),
)
"""The paper's: the segmentation network beats the rule it learnt from, and it pays for the face."""

GATES = (
    Claim("Oracle", "MoFA", "shape_error_mm"),
    Claim("Oracle", "MoFA", "appearance_rmse"),
    Claim("MoFA", "MeanFace", "shape_error_mm"),
    Claim("MoFA", "MeanFace", "appearance_rmse"),
)
"""Without these the benchmark cannot show the claims: true masks must help, and learning must have happened."""


@dataclass(frozen=True)
class Finding:
    """A claim and what the runs say about it."""

    claim: Claim
    first: float
    """Mean over images of the first method."""
    second: float
    """The same of the second."""
    difference: Interval
    """first - second with its 95% interval over images."""
    across_runs: Interval | None
    """The same over runs and images; None for a single run."""

    @property
    def verdict(self) -> Verdict:
        """Holds or fails where the interval over images is on one side of zero; else the question is open."""
        good = 1 if LARGER_IS_BETTER[self.claim.metric] else -1
        return {1: "holds", 0: "open", -1: "fails"}[good * self.difference.sign]  # type: ignore[return-value]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "claim": str(self.claim),
            "metric": self.claim.metric,
            self.claim.first: self.first,
            self.claim.second: self.second,
            "difference": self.difference._asdict(),
            "across_runs": None if self.across_runs is None else self.across_runs._asdict(),
            "verdict": self.verdict,
        }


def check_claims(
    runs: Sequence[Mapping[str, Any]], claims: Sequence[Claim] = (*CLAIMS, *GATES), *, same_images: bool = False
) -> list[Finding]:
    """Compares methods image by image.

    Args:
        runs: of each training run what `Evaluation.per_image` gave; the shape error of an image is the mean over its
            vertices.
        claims: to check; those on methods that a run lacks are left out.
        same_images: all runs were tested on the same images; see `paired_bootstrap`.

    Raises:
        FocusError: there are no runs, or one of them has fewer than two occluded images, or two of another half.
    """
    if not runs:
        raise FocusError("check_claims: expected the results of at least one run, got none")
    names = set.intersection(*(set(run["methods"]) for run in runs))
    return [_check(runs, claim, same_images) for claim in claims if {claim.first, claim.second} <= names]


def _check(runs: Sequence[Mapping[str, Any]], claim: Claim, same_images: bool) -> Finding:
    first = [_values(run, claim.first, claim) for run in runs]
    second = [_values(run, claim.second, claim) for run in runs]
    return Finding(
        claim=claim,
        first=float(np.mean([values.mean() for values in first])),
        second=float(np.mean([values.mean() for values in second])),
        difference=paired_bootstrap(first, second, same_images=same_images),
        across_runs=paired_bootstrap(first, second, resample_runs=True, same_images=same_images)
        if len(runs) > 1
        else None,
    )


def _values(run: Mapping[str, Any], method: str, claim: Claim) -> NDArray[np.float64]:
    occluded = np.asarray(run["occluded"], dtype=bool)
    values = np.asarray(run["methods"][method][claim.metric], dtype=np.float64)
    if values.shape != occluded.shape or not occluded.any():
        raise FocusError(
            f"check_claims: {method}, {claim.metric}: expected a value for each of {occluded.size} images, some "
            f"occluded, got {values.size} values and {int(occluded.sum())} occluded images"
        )
    chosen = {"occluded": occluded, "unoccluded": ~occluded, "overall": np.ones_like(occluded)}[claim.half]
    found: NDArray[np.float64] = values[chosen]
    if len(found) < 2:
        raise FocusError(
            f"check_claims: {method}, {claim.metric}: expected at least two images ({claim.half}), got {len(found)}"
        )
    return found
