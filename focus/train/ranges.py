"""What is allowed for every number of `Settings`: the one table.

The limits are wide. They keep out what no run can mean, such as a million workers, and what would overflow on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focus.conform import numbers_of
from focus.errors import FocusError


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; `open_low` and `open_high` leave them out."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"above {_shown(self.low)}" if self.open_low else f"at least {_shown(self.low)}"
        return f"{low} and {'below' if self.open_high else 'at most'} {_shown(self.high)}"


_LARGE = 2**31 - 1
_COUNT, _EVERY, _FRACTION = Range(0, _LARGE), Range(1, _LARGE), Range(0, 1)
_COMPONENTS, _CHANNELS, _SIDE = Range(0, 100_000), Range(1, 65_536), Range(1, 1024)
_DEGREES, _WEIGHT, _POSITIVE, _FACTOR = Range(0, 180), Range(0, 1e9), Range(0, 1e6, open_low=True), Range(-1e6, 1e6)

_RATE: Mapping[str, Range] = {
    "start": Range(0, 1e6),
    "decay": Range(0, 10),
    "decay_every": _EVERY,
    "cosine_end": Range(0, 10),
    "warm_up": _COUNT,
}
_GROUPS: Mapping[str, Mapping[str, Range]] = {
    "": {
        "seed": Range(0, 2**32 - 1),
        "image_size": Range(16, 8192),
        "batch_size": Range(1, 65_536),
        "binary_ramp": _COUNT,
        "disturbance": Range(0, 100),
        "anchor": _WEIGHT,
        "keep": _FRACTION,
        "threads": Range(0, 4096),
        "workers": Range(0, 1024),
    },
    "face": dict.fromkeys(("identity", "expression", "albedo"), _COMPONENTS),
    "network.encoder": {
        "blocks": Range(1, 1000),
        "widths": _CHANNELS,
        "strides": _SIDE,
        "stem_width": _CHANNELS,
        "stem_kernel": _SIDE,
        "pool_size": _SIDE,
        "output_width": Range(1, 1_000_000),
        **{
            f"{name}_{kind}": _COMPONENTS for name in ("identity", "expression", "albedo") for kind in ("count", "used")
        },
        **{
            f"{name}_scale": _FACTOR
            for name in ("identity", "expression", "albedo", "rotation", "translation", "lighting")
        },
        "input_mean": _FACTOR,
        "input_deviation": _POSITIVE,
    },
    "network.segmentation": {"filters": _CHANNELS, "dropout": Range(0, 1, open_high=True), "gain": _FACTOR},
    "data": {
        "validation": _COUNT,
        "distinct": _EVERY,
        "crops_gigabytes": Range(0, 1_000),
        "synthetic_fraction": _FRACTION,
        "pasted_fraction": _FRACTION,
        "pasted_coverage": _FRACTION,
    },
    "data.synthetic": {
        "occluded_fraction": _FRACTION,
        "coverage": _FRACTION,
        "aged_fraction": _FRACTION,
        "extreme_light_fraction": _FRACTION,
        "coefficient_limit": Range(0, 100),
        "degradation": Range(0, 100),
        "cast": Range(0, 10),
        "landmark_noise": Range(0, 10),
        "hidden_landmark_noise": Range(0, 10),
    },
    "data.synthetic.pose": {
        **dict.fromkeys(("yaw", "yaw_limit", "pitch", "pitch_limit", "roll", "roll_limit"), _DEGREES),
        "wide_yaw_fraction": _FRACTION,
        "shift": Range(0, 1000),
        "scale": Range(0, 10),
    },
    "data.patches": {"probability": _FRACTION, "area": _FRACTION, "aspect": _POSITIVE},
    "stages": {
        **dict.fromkeys(("initialise", "segmentation", "again", "joint", "adapt", "segmentation_in_cycle"), _COUNT),
        "cycle": _EVERY,
    },
    "robust": {
        "plain": _FRACTION,
        "anneal": _FRACTION,
        "sigma_start": _POSITIVE,
        "sigma": _POSITIVE,
        "cutoff": _POSITIVE,
    },
    "reconstruction_weights": dict.fromkeys(
        ("pixel", "robust", "perceptual", "landmark", "regularisation", "area"), _WEIGHT
    ),
    "segmentation_weights": {
        **dict.fromkeys(("neighbor", "distance", "area", "preserve", "binary"), _WEIGHT),
        "neighbor_window": Range(1, 15),
        "neighbor_power": Range(1, 2),
    },
    "teaching_weights": {
        **dict.fromkeys(("place", "shape", "albedo", "pixel", "regularisation"), _WEIGHT),
        "seen": Range(1e-3, 1e3),
    },
    "optimiser": {"gradient_clip": Range(0, 1e12, open_low=True)},
    **{
        f"optimiser.{name}": _RATE
        for name in ("initialise", "segmentation", "again", "joint_reconstruction", "joint_segmentation")
    },
    "measures": {"parts": Range(1, 65_536)},
    "guard": {"window": _EVERY, "lowest": _FRACTION, "highest": _FRACTION},
    "log": {
        **dict.fromkeys(("every", "checkpoint_every", "validate_every"), _EVERY),
        "pictures": Range(0, 10_000),
        "checkpoints": _COUNT,
        "seconds_per_line": Range(0, 1e9),
    },
}

RANGES: Mapping[str, Range] = {
    f"{group}.{name}" if group else name: allowed
    for group, ranges in _GROUPS.items()
    for name, allowed in ranges.items()
}
"""Dotted name of a field of `Settings` -> what is allowed; for each number of a tuple."""


def check_ranges(settings: Any) -> None:
    """Raises `FocusError` for a number of settings that is not allowed, with the name of its field."""
    for name, value in numbers_of(settings):
        if value not in RANGES[name]:
            raise FocusError(f"settings: {name}: expected a number {RANGES[name]}, got {value}")


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
