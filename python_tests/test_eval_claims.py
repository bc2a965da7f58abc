"""Claims: the right pairs, the right direction, and an open question where the interval holds zero."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from focus.errors import FocusError
from focus.eval.claims import CLAIMS, GATES, Claim, check_claims


def run(seed: int, **offsets: float) -> dict[str, Any]:
    """Results of 40 occluded and 40 free pictures; every metric of a method is a common hardness plus its offset."""
    rng = np.random.default_rng(seed)
    hardness = rng.normal(scale=5, size=80)
    keys = ("f1", "outlier_iou", "shape_error_mm", "appearance_rmse")
    return {
        "occluded": [True] * 40 + [False] * 40,
        "methods": {
            # The free half says the opposite: only the occluded one may count.
            name: {
                key: (hardness + np.repeat([offset, -10 * offset], 40) + rng.normal(scale=0.1, size=80)).tolist()
                for key in keys
            }
            for name, offset in offsets.items()
        },
    }


def test_directions_follow_the_metric() -> None:
    found = {
        str(f.claim): f for f in check_claims([run(0, FOCUS=1.0, Pretrained=0.0, MoFA=3.0, Oracle=0.5, MeanFace=4.0)])
    }
    assert len(found) == len(CLAIMS) + len(GATES)
    better = found["FOCUS against Pretrained: outlier IoU"]
    assert better.verdict == "holds"
    assert better.difference.mean == pytest.approx(1, abs=0.1)
    assert better.first - better.second == pytest.approx(better.difference.mean)
    assert better.across_runs is None
    assert found["FOCUS against MoFA: shape error"].verdict == "holds"
    assert found["MoFA against MeanFace: appearance error"].verdict == "holds"


def test_a_claim_can_fail_or_stay_open() -> None:
    found = check_claims([run(1, FOCUS=0.0, Pretrained=1.0, MoFA=0.0)], CLAIMS)
    verdicts = {finding.claim: finding.verdict for finding in found}
    assert verdicts[Claim("FOCUS", "Pretrained", "f1")] == "fails"
    assert verdicts[Claim("FOCUS", "MoFA", "shape_error_mm")] == "open"


def test_several_runs_give_both_intervals() -> None:
    runs = [run(seed, FOCUS=1.0 + seed, MoFA=4.0) for seed in range(3)]
    (found,) = check_claims(runs, [Claim("FOCUS", "MoFA", "appearance_rmse")])
    assert found.difference.mean == pytest.approx(-2, abs=0.1)
    assert found.across_runs is not None
    assert found.across_runs.high - found.across_runs.low > 3 * (found.difference.high - found.difference.low)
    assert json.loads(json.dumps(found.as_dict()))["verdict"] == "holds"


def test_methods_that_a_run_lacks_are_left_out() -> None:
    assert check_claims([run(0, FOCUS=1.0)]) == []


def test_results_that_do_not_fit_are_refused() -> None:
    broken = run(0, FOCUS=1.0, Pretrained=0.0)
    broken["occluded"] = [False] * 80
    with pytest.raises(FocusError, match="0 occluded images"):
        check_claims([broken], CLAIMS)
    with pytest.raises(FocusError, match="at least one run"):
        check_claims([])
