"""Which network learns when and from which faces: all that follows from the settings and the number of an iteration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from focus.losses import annealed_sigma
from focus.train.config import OptimiserSettings, Rate, RobustSettings, Stage, StageSettings
from focus.train.methods import METHODS, Method

Network = Literal["reconstruction", "segmentation"]

SEGMENTATION_STREAM = 1 << 40
"""The segmentation network's first batch. Each network has its own stream, so that the reconstruction network sees the
same faces in the same order whether or not a segmentation network is trained in between."""


@dataclass(frozen=True)
class Turn:
    """Iterations in a row of one network."""

    stage: Stage
    network: Network
    cycle: int
    """Number of the cycle of the stage, from 0."""
    start: int
    """Number of its first iteration in the run."""
    length: int
    """Number of iterations."""
    before: int
    """Iterations of this network earlier in the stage."""
    total: int
    """Iterations of this network in the whole stage."""
    seen: int
    """Iterations of this network earlier in the run: the number of its first batch."""

    @property
    def end(self) -> int:
        """Number of the first iteration after it."""
        return self.start + self.length

    def batch(self, step: int) -> int:
        """Number of the batch of iteration `step` of the run."""
        return self.seen + step - self.start + (SEGMENTATION_STREAM if self.network == "segmentation" else 0)

    def iteration(self, step: int) -> int:
        """Number of iteration `step` of the run among the network's own in this stage."""
        return self.before + step - self.start


def plan(stages: StageSettings, method: Method) -> tuple[Turn, ...]:
    """All turns of a run, in order. Methods without a segmentation network leave out its turns, and nothing else."""
    wanted: list[tuple[Stage, Network, int, int]] = [
        ("initialise", "reconstruction", 0, stages.initialise),
        ("segmentation", "segmentation", 0, stages.segmentation),
        ("again", "segmentation", 0, stages.again),
        *_cycles("joint", stages.joint, stages),
        *_cycles("adapt", stages.adapt, stages),
    ]
    wanted = [turn for turn in wanted if turn[3] > 0 and (METHODS[method].segments or turn[1] == "reconstruction")]
    turns: list[Turn] = []
    for stage, network, cycle, length in wanted:
        own = [turn for turn in turns if turn.network == network]
        turns.append(
            Turn(
                stage,
                network,
                cycle,
                start=turns[-1].end if turns else 0,
                length=length,
                before=sum(turn.length for turn in own if turn.stage == stage),
                total=sum(turn[3] for turn in wanted if turn[:2] == (stage, network)),
                seen=sum(turn.length for turn in own),
            )
        )
    return tuple(turns)


def _cycles(stage: Stage, iterations: int, stages: StageSettings) -> Iterator[tuple[Stage, Network, int, int]]:
    for cycle, start in enumerate(range(0, iterations, stages.cycle)):
        length = min(stages.cycle, iterations - start)
        segmentation = min(stages.segmentation_in_cycle, length)
        yield stage, "segmentation", cycle, segmentation
        yield stage, "reconstruction", cycle, length - segmentation


def robust_sigma(settings: RobustSettings, progress: float) -> float | None:
    """Sigma at `progress` in [0, 1) of the stage `initialise`; None while L_pixel stands in for the robust loss."""
    if progress < settings.plain:
        return None
    done = (progress - settings.plain) / settings.anneal if settings.anneal else 1.0
    return annealed_sigma(done, start=settings.sigma_start, end=settings.sigma)


def rate_of(settings: OptimiserSettings, turn: Turn) -> Rate:
    """The learning rate that applies to a turn."""
    if turn.stage == "initialise":
        return settings.initialise
    if turn.stage == "segmentation":
        return settings.segmentation
    if turn.stage == "again":
        return settings.again
    return settings.joint_reconstruction if turn.network == "reconstruction" else settings.joint_segmentation
