"""What is said, in words, of a run that goes on but not as it might."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

_WAITING = 0.2
"""More than this part of the time spent on waiting for faces is told."""
_SLOWER = 2.0
"""Times the usual duration of an iteration of the same kind."""
_DRIFT = 0.15
"""Change of the mean mask since the beginning of the stage."""
_EXPLOSION = 10.0
"""Times the usual norm of the gradient."""
_USUAL = 5
"""Reports after which something is usual."""
_IN_A_ROW = 3
"""Reports that must agree: one alone may be an accident."""


@dataclass
class _Kind:
    """What the reports of one kind of iteration have said so far."""

    seconds: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    masks: list[float] = field(default_factory=list)


class Adviser:
    """Hears the reports of a run, and says what is wrong with them; each fault once in a stage.

    Args:
        workers: processes that draw faces.
        masks: whether masks are learnt without being given; those by a rule change as the faces do.
    """

    def __init__(self, workers: int, *, masks: bool = True) -> None:
        self._workers, self._masks = workers, masks
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._waited: list[float] = []
        self._told: set[tuple[str, str]] = set()

    def hear(self, stage: str, network: str, seconds: float, waiting: float, means: Mapping[str, float]) -> list[str]:
        """Of one report.

        Args:
            stage, network: of its iterations.
            seconds: that an iteration took, in the mean.
            waiting: of these, on faces.
            means: of the terms of the loss, ``gradient_norm`` and ``mask`` among them.

        Returns:
            Sentences for people.
        """
        kind = self._kinds.setdefault((stage, network), _Kind())
        kind.seconds.append(seconds)
        self._waited.append(waiting / seconds if seconds else 0.0)
        if "gradient_norm" in means:
            kind.norms.append(means["gradient_norm"])
        if "mask" in means:
            kind.masks.append(means["mask"])
        found = {
            "waiting": self._waiting(),
            "slower": _slower(kind.seconds),
            "masks": _drift(kind.masks) if self._masks and stage in ("joint", "adapt") else None,
            "gradient": _explosion(kind.norms, network),
        }
        new = [name for name, text in found.items() if text and (stage, name) not in self._told]
        self._told |= {(stage, name) for name in new}
        return [f"{stage}: {found[name]}" for name in new]

    def _waiting(self) -> str | None:
        last = self._waited[-_IN_A_ROW:]
        if len(last) < _IN_A_ROW or min(last) < _WAITING:
            return None
        now = "none draw ahead" if self._workers == 0 else f"{self._workers} draw ahead"
        return (
            f"{statistics.median(last):.0%} of the time goes to waiting for faces: more processes may draw them "
            f"meanwhile (setting workers; now {now})"
        )


def _usual(values: list[float]) -> tuple[float, list[float]] | None:
    """The median of what came before the last few, and these."""
    before, last = values[:-_IN_A_ROW], values[-_IN_A_ROW:]
    return (statistics.median(before), last) if len(before) >= _USUAL else None


def _slower(seconds: list[float]) -> str | None:
    usual = _usual(seconds)
    if usual is None or min(usual[1]) < _SLOWER * usual[0]:
        return None
    now = statistics.median(usual[1])
    return (
        f"an iteration takes {1e3 * now:.0f} ms and took {1e3 * usual[0]:.0f} ms before: something else is at work on "
        "this machine, or it is too hot"
    )


def _drift(masks: list[float]) -> str | None:
    usual = _usual(masks)
    if usual is None:
        return None
    first, now = statistics.median(masks[:_USUAL]), statistics.median(usual[1])
    if abs(now - first) <= _DRIFT:
        return None
    what = "face" if now > first else "hidden"
    return (
        f"the masks drift: {first:.0%} of the rendered faces were called seen at first and {now:.0%} are: more and "
        f"more is called {what}. Look at the pictures of the run; docs/weights.md says which weights hold the masks"
    )


def _explosion(norms: list[float], network: str) -> str | None:
    usual = _usual(norms)
    if usual is None or min(usual[1]) < _EXPLOSION * usual[0]:
        return None
    return (
        f"the gradient of the {network} network is {statistics.median(usual[1]) / usual[0]:.0f} times as long as it "
        "was: lower its learning rate (optimiser), or limit the gradient (optimiser.gradient_clip)"
    )
