"""The training loop: one network at a time, in the turns of `plan`, resumable after every iteration."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from focus import phases
from focus.data.batches import FaceBatch
from focus.errors import FocusError
from focus.face import MorphableModel
from focus.nets import FeatureExtractor
from focus.phases import phase
from focus.report.panels import reconstruction_sheet
from focus.train.advice import Adviser
from focus.train.checkpoint import Checkpoint, Header, Networks, load_checkpoint, save_checkpoint
from focus.train.config import Settings
from focus.train.distributed import place, total, was_left
from focus.train.learner import Learner
from focus.train.log import Logger, SilentLogger
from focus.train.methods import METHODS, Method
from focus.train.monitor import Ending, MaskGuard, Stop, Window, empty_images, stop_on_signals
from focus.train.objectives import Objectives
from focus.train.record import machine, require_same_run
from focus.train.retention import retain
from focus.train.schedule import Network, Turn, plan
from focus.train.scores import Prediction, share, true_scores
from focus.train.sources import Batches, DataSource, Mover, WorkersLostError, out_of_memory
from focus.train.state import optimiser_state, restore_optimisers

MASK_SCORE = "taught_mean_iou"
"""Of `true_scores`."""
_LOSS_THAT_IS_NONE = 0.01
_LARGEST_COST_OF_KEEPING = 0.05
"""The mean with the network of before is for other photos than those at hand, and may cost a little on these; the mean
of networks that are too far apart is worse than both."""
LAST = "last.safetensors"
"""The checkpoint from which the run of a folder goes on."""


class StoppedError(FocusError):
    """A run that must not go on, or that has already saved what it could."""


class NotSavedError(FocusError):
    """A checkpoint that cannot be written."""


class Trainer:
    """Trains the two networks by the settings; `focus.train.train` makes all of its parts.

    Args:
        settings: the run.
        model: the morphable model; shared, moved to `device`.
        networks: moved to `device`, trained in place.
        data: the faces.
        features: recognition features; moved to `device`.
        adaptation: the faces of the stage `adapt`; None: `data`.
        teach_again: called with the trainer before the stage `again`, for its faces and those of the stages after it.
        validation: faces that are never trained on; None: no validation.
        adaptation_validation: the same for the stage `adapt`; None: `validation`.
        folder: for checkpoints; None: none are written.
        logger: is told how it goes; None: nobody.
        device: where to compute.
        after_turn: called with the trainer and the turn at the end of each turn.
        data_digests: what was read, for the checkpoint.
        began: the segmentation network that the run began with, of which `Settings.keep` stays; None: nothing does.
    """

    def __init__(
        self,
        settings: Settings,
        model: MorphableModel,
        networks: Networks,
        data: DataSource,
        features: FeatureExtractor,
        *,
        began: Mapping[str, Tensor] | None = None,
        adaptation: DataSource | None = None,
        teach_again: Callable[[Trainer], DataSource] | None = None,
        validation: FaceBatch | None = None,
        adaptation_validation: FaceBatch | None = None,
        folder: Path | None = None,
        logger: Logger | None = None,
        device: torch.device | str = "cpu",
        after_turn: Callable[[Trainer, Turn], None] | None = None,
        data_digests: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.data, self.adaptation = settings, data, adaptation or data
        self.logger = logger or SilentLogger()
        self._teach_again = teach_again
        self.device = torch.device(device)
        self.model, self.networks = model.to(self.device), networks.to(self.device)
        features = features.to(self.device) if isinstance(features, nn.Module) else features
        self.objectives = Objectives(settings, self.model, self.networks, features)
        self.validation, self.adaptation_validation = validation, adaptation_validation or validation
        self.folder, self.after_turn = folder, after_turn
        self.plan = plan(settings.stages, settings.method)
        self.total = self.plan[-1].end if self.plan else 0
        self.process, self.processes = place()
        self.step = 0
        """Iterations done."""
        self.ending: Ending | None = None
        self.validated: dict[str, dict[str, float]] = {}
        self.learner = Learner(settings, self.networks, self.objectives, self.device)
        self._mover = Mover(self.device)
        self._fingerprint = model.fingerprint()
        self._data_digests = dict(data_digests or {})
        self._stage = ""
        self._window = Window()
        self._adviser = Adviser(settings.workers, masks=METHODS[settings.method].unsupervised_masks)
        self._began: dict[str, Tensor] = {}
        if settings.keep and began and any(turn.network == "segmentation" for turn in self.plan):
            self._began = {name: value.clone() for name, value in began.items()}
        self._guard: MaskGuard | None = None
        self._pace: dict[tuple[str, str], float] = {}

    def run(self) -> bool:
        """Trains to the end of the plan.

        Returns:
            False if a signal (Ctrl-C, SIGTERM) ended the run before; `resume` goes on with its checkpoint.

        Raises:
            FocusError: the masks collapsed, or a number is not finite: the last good checkpoint is still there. Memory
                ran out, data workers died, or the data are gone: the iterations done are saved.
        """
        over = "stopped" in self.validated or self._has_kept
        for turn in self.plan:
            if turn.end == self.step and not over:  # it may have been ended before it was judged
                over = self._judge(turn)
        # Fits before a leg can be interrupted at once: each that is done is kept.
        for leg in () if over else self._legs():
            with stop_on_signals() as stopped:
                if not self._run(leg, stopped):
                    return False
        self._keep()
        return True

    @property
    def _has_kept(self) -> bool:
        return self.validated.get("kept", {}).get("step") == self.step

    def _keep(self) -> None:
        """Takes the mean of the segmentation network and of what it began with, once, at the end of a run."""
        if not self._began or self._has_kept:
            return
        share, network, before = self.settings.keep, self.networks.segmentation, dict(self.validated)
        learnt = {name: value.clone() for name, value in network.state_dict().items()}
        mean = {
            name: torch.lerp(value, self._began[name].to(value), share) if value.is_floating_point() else value
            for name, value in learnt.items()
        }
        network.load_state_dict(mean)
        self._validate(self.plan[-1])
        was, now = (values.get("last", {}).get(MASK_SCORE, 0.0) for values in (before, self.validated))
        text = f"{share:.0%} of the segmentation network that the run began with is kept in its weights"
        if self._agree(now < was - _LARGEST_COST_OF_KEEPING):
            network.load_state_dict(learnt)
            self.validated = before
            text = (
                f"nothing of the segmentation network that the run began with is kept: {MASK_SCORE} of the faces that "
                f"are held out would be {now:.3f} and is {was:.3f}"
            )
        self.validated["kept"] = {"step": self.step}
        if self.folder is not None and not self.process:
            last = save_checkpoint(self.folder / LAST, *self.state())
            retain(last, step=self.step, best=self._is_best, count=self.settings.log.checkpoints)
        self.logger.message(text)

    def _legs(self) -> Iterator[tuple[Turn, ...]]:
        """What is left of the plan, cut where the faces of a second lesson take the place of those of the first."""
        left = [turn for turn in self.plan if turn.end > self.step]
        first = [
            turn for turn in left if self._teach_again is not None and turn.stage in ("initialise", "segmentation")
        ]
        second = left[len(first) :]
        if first:
            yield tuple(first)
        if second:
            if self._teach_again is not None and any(turn.stage == "again" for turn in self.plan):
                self.data = self._teach_again(self)
            yield tuple(second)

    def _run(self, leg: tuple[Turn, ...], stopped: Stop) -> bool:
        """Trains to the end of some turns in a row; False if a signal ended it."""
        log, told, workers = self.settings.log, self.logger.message, self.settings.workers
        sources = (self.data, self.adaptation)
        with Batches(sources, lambda: self._order(leg), workers=workers, told=told) as batches:
            for turn in leg:
                self._begin(turn)
                stopping = False
                while self.step < turn.end:
                    with self._saved_if_it_fails(turn):
                        self._window.start()
                        with phases.iteration(f"{turn.stage}, {turn.network} network"):
                            idle = self.learner.is_idle()
                            with phase("waiting for data", whole=True), self._window.waiting(idle=idle):
                                batch = next(batches)
                            with phase("moving data"):
                                batch = self._mover(batch)
                            self._iterate(turn, batch)
                            finished, stopping = self.step == turn.end, self._agree(stopped.is_set())
                            saving = finished or stopping or self.step % log.checkpoint_every == 0
                            if saving or self.step % log.every == 0:
                                # Before saving: it ends the run where the numbers make no sense.
                                with phase("logging"):
                                    self._report(turn)
                        if finished or self.step % log.validate_every == 0:
                            self._validate(turn)
                        if saving or self._is_best:
                            self._save(turn)
                    if stopping and not finished:
                        break
                else:
                    if self.after_turn is not None:
                        self.after_turn(self, turn)
                    if self._judge(turn):
                        return True
                if stopping and self.step < self.total:
                    self.ending = Ending.by(stopped.number, self.step, self.total)
                    told(self.ending.text)
                    return False
        return True

    def _judge(self, turn: Turn) -> bool:
        """After a turn: puts the networks of before back where the masks became worse; True where that ends the run."""
        worse = self._agree(self._is_worse(turn))
        if worse:
            self._put_back(turn)
        return worse and turn.stage == "joint"

    def _is_worse(self, turn: Turn) -> bool:
        """Whether second lessons, or what the networks teach each other, have made the masks worse on the faces that
        are held out, by what a teacher says of them and by what was drawn before them. Known to the first process.
        """
        ends_cycle = turn.network == "reconstruction" or turn.end == self.total
        if turn.stage not in ("again", "joint") or (turn.stage == "joint" and not ends_cycle) or self.process:
            return False
        before = self._before(turn)
        scores = (None if before is None else before.header.validation, self.validated)
        was, now = ((values or {}).get("last", {}).get(MASK_SCORE) for values in scores)
        return was is not None and now is not None and now < was - _LOSS_THAT_IS_NONE

    def _before(self, turn: Turn) -> Checkpoint | None:
        """The networks at the end of the lessons before a turn."""
        for stage in ("again", "segmentation")[turn.stage == "again" :]:
            path = (self.folder or Path()) / f"{stage}.safetensors"
            planned = any(other.stage == stage for other in self.plan)
            if self.settings.teacher != "none" and self.folder is not None and planned and path.exists():
                return load_checkpoint(path)
        return None

    def _put_back(self, turn: Turn) -> None:
        """Takes the networks as they were before a turn in place of those that it made."""
        before = self._before(turn)
        if before is None:
            return
        before.load_networks(self.networks)
        if not self.process:
            was, now = (values["last"][MASK_SCORE] for values in (before.header.validation, self.validated))
            ended = {"stopped": self.validated["last"]} if turn.stage == "joint" else {}
            self.validated = {**before.header.validation, **ended}
            if self.validated.get("best", {}).get("step", 0) != before.header.step and self.folder is not None:
                self.validated["best"] = self.validated["last"]  # that of the networks that were not kept is gone
            retain(before.path, step=before.header.step, best=True, count=0)
            self.logger.message(
                f"the stage {turn.stage} made the masks worse: {MASK_SCORE} of the faces that are held out was "
                f"{was:.3f} before it and is {now:.3f} after iteration {self.step}. The networks of before "
                f"({before.path}) are put back{', and the run ends' if ended else ''}"
            )
        self._save(turn)

    @contextlib.contextmanager
    def _saved_if_it_fails(self, turn: Turn) -> Iterator[None]:
        """Where something fails inside, the iterations done are saved first; what a user can mend is told so."""
        try:
            yield
        except (StoppedError, NotSavedError):
            raise
        except Exception as error:
            reason = str(error)
            if isinstance(error, WorkersLostError):
                reason += ": so did others shortly before. The machine may be out of memory: use fewer workers"
            elif out_of_memory(error):
                first = reason.splitlines()[0] if reason else type(error).__name__
                reason = f"not enough memory ({first}): end other programs or use fewer workers"
            elif was_left(error):
                first = reason.splitlines()[0]
                reason = f"another process of the run is gone, or does not answer ({first}): see what it says itself"
            elif not isinstance(error, FocusError):
                self._rescue(turn)  # a fault of ours, or a process that went away: its traceback is wanted
                raise
            raise StoppedError(
                f"training stopped after iteration {self.step}: {reason.rstrip('.')}.{self._rescue(turn)}"
            ) from error

    def _rescue(self, turn: Turn) -> str:
        """Saves what is done, if it is whole, and says what is kept."""
        with contextlib.suppress(FocusError, RuntimeError, MemoryError):  # as well as it goes
            if self.learner.whole and self.step:
                self.learner.undo()
                self._save(turn)
        return self._kept()

    def _begin(self, turn: Turn) -> None:
        """The network of this turn learns, the other one is frozen."""
        if turn.stage != self._stage:
            self._stage = turn.stage
            if turn.stage == "adapt" and self.step == turn.start and self.adaptation_validation is not self.validation:
                self.validated.pop("best", None)  # it is of other faces
            learning = {other.network for other in self.plan if other.stage == turn.stage}
            self.learner.begin_stage([name for name, _ in self.networks.items() if name in learning])
            highest = turn.stage in ("joint", "adapt") and METHODS[self.settings.method].unsupervised_masks
            self._guard = MaskGuard(self.settings.guard, highest=highest) if turn.stage != "initialise" else None
        self.learner.begin(turn.network)

    @property
    def optimisers(self) -> dict[Network, torch.optim.Optimizer]:
        """Of the networks that learn in this stage."""
        return self.learner.optimisers

    def _order(self, turns: tuple[Turn, ...]) -> Iterator[tuple[int, int]]:
        """(number of the source, number of the batch) for what is left of some turns."""
        return (
            (int(turn.stage == "adapt"), turn.batch(step))
            for done in (self.step,)  # as it is now, not when the last one is asked for
            for turn in turns
            for step in range(max(turn.start, done), turn.end)
        )

    def _iterate(self, turn: Turn, batch: FaceBatch) -> None:
        terms = self.learner.learn(turn, self.step, batch)
        self.step += 1
        with phase("logging"):
            self._window.add(terms)
            if self._guard is not None and "mask" in terms:
                self._guard.add(terms["mask"], terms.get("empty"))

    def predict(self, batch: FaceBatch, method: Method | None = None) -> Prediction:
        """Reconstructions of a batch that is on the trainer's device, and their masks by the rule of a method."""
        return self.objectives.predict(batch, method)

    def _report(self, turn: Turn) -> None:
        """Means since the last report go to the log. Ends the run where they make no sense."""
        window, self._window = self._window, Window()
        means, seconds = window.means(), window.seconds()
        waiting = window.waited / max(window.count, 1)
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            self._stop(
                f"{', '.join(wrong)} not finite between iterations {self.step - window.count + 1} and {self.step} "
                f"({turn.stage}, {turn.network}). Lower its learning rate (optimiser), limit the gradient "
                "(optimiser.gradient_clip), or look at the faces of these iterations."
            )
        rate = float(self.optimisers[turn.network].param_groups[0]["lr"])
        kind = f"{turn.stage}/{turn.network}"
        pace = {"iterations_per_second": round(1 / seconds, 3), "waiting": round(waiting / seconds, 4)}
        if self.settings.measures.compile:
            pace["compiled_graphs"] = self.learner.compiled_graphs
        self.logger.scalars(self.step, kind, {**means, "rate": rate, **pace})
        for advice in self._adviser.hear(turn.stage, turn.network, seconds, waiting, means):
            self.logger.message(advice)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        self._pace[turn.stage, turn.network] = seconds
        self.logger.progress(self.step, self.total, f"{turn.stage} {turn.network}  {shown}", self._seconds_left())
        problem = self._guard.problem() if self._guard is not None else None
        if problem:
            self._stop(problem)

    def _agree(self, stopping: bool) -> bool:
        """Whether any process was told to stop: all stop after the same iteration."""
        flag = torch.tensor(float(stopping), dtype=torch.float32, device=self.device)
        return stopping if self.processes == 1 else bool(total(flag) > 0)

    def _seconds_left(self) -> float:
        """By the pace of each stage and network, or the mean of the known ones where it has not begun."""
        guess = sum(self._pace.values()) / len(self._pace)
        return sum(
            (turn.end - max(turn.start, self.step)) * self._pace.get((turn.stage, turn.network), guess)
            for turn in self.plan
            if turn.end > self.step
        )

    @torch.no_grad()
    def _validate(self, turn: Turn) -> None:
        """Scores and a picture of the validation faces.

        The loss is L_R with the outlier-robust likelihood at its final sigma: one yardstick for all stages and methods.
        """
        batch = self.adaptation_validation if turn.stage == "adapt" else self.validation
        if batch is None or self.process:
            return
        for _, network in self.networks.items():
            self._require_finite(network.state_dict().values())
        batch = batch.to(self.device)
        found = self.predict(batch, "pretrained" if turn.stage == "initialise" else None)
        face = found.rendering.mask
        loss, scores = self.objectives.reconstruction_loss(
            batch, found.parameters, found.rendering, sigma=self.settings.robust.sigma
        )
        scores |= {"loss": loss, "mask": share(found.mask, face), "empty": empty_images(found.mask, face)}
        scores |= true_scores(batch, found, self.model)
        values = {"step": self.step, **{name: float(value) for name, value in scores.items()}}
        self.logger.scalars(self.step, "validation", values)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if "loss" in finite:
            self.validated["last"] = finite
            if finite["loss"] < self.validated.get("best", {"loss": math.inf})["loss"]:
                self.validated["best"] = finite
        count = self.settings.log.pictures
        if count:
            sheet = reconstruction_sheet(batch, found.rendering, found.mask, count)
            self.logger.picture(self.step, f"{turn.stage}_{turn.network}", sheet)

    def _save(self, turn: Turn) -> None:
        """Writes the checkpoint of the run and, at the end of a stage, before it, one that keeps its name."""
        if self.folder is None or self.process:
            return
        header, tensors = self.state()
        self._require_finite(tensors.values())
        try:
            if not any(other.stage == turn.stage and other.end > self.step for other in self.plan):
                save_checkpoint(self._stage_file(turn), header, tensors)
            last, count = save_checkpoint(self.folder / LAST, header, tensors), self.settings.log.checkpoints
            retain(last, step=self.step, best=self._is_best, count=count)
        except FocusError as error:
            raise NotSavedError(str(error)) from error

    @property
    def _is_best(self) -> bool:
        """Whether this iteration has the least validation loss so far."""
        return self.validated.get("best", {}).get("step") == self.step

    def _stage_file(self, turn: Turn) -> Path:
        return (self.folder or Path()) / f"{turn.stage}.safetensors"

    def _require_finite(self, weights: Iterable[Tensor]) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in weights):
            self._stop(
                "a weight is not finite. Lower the learning rate (optimiser) or limit the gradient "
                "(optimiser.gradient_clip)."
            )

    def _stop(self, reason: str) -> NoReturn:
        raise StoppedError(f"training stopped after iteration {self.step}: {reason}{self._kept()}")

    def _kept(self) -> str:
        there = self.folder is not None and (self.folder / LAST).exists()
        return f" The last good checkpoint is {self.folder / LAST}." if self.folder and there else ""

    def state(self) -> tuple[Header, dict[str, Tensor]]:
        """Everything that the run needs to go on, for `save_checkpoint`."""
        tensors, numbers = optimiser_state(self.optimisers)
        for name, network in self.networks.items():
            tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        header = Header(
            settings=self.settings.to_dict(),
            model_name=self.model.name,
            model_fingerprint=self._fingerprint,
            step=self.step,
            optimiser=numbers,
            validation=self.validated,
            data=self._data_digests,
            machine=machine(self.settings, self.device),
        )
        return header, tensors

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on where `checkpoint` was written: on the CPU, `run` then computes the same bits as without the break.

        Where the run ended between the two checkpoints of the end of a stage, the second is written now.

        Raises:
            FocusError: it is for inference only, of another face model, or of a run with other settings; its state does
                not fit.
        """
        header = checkpoint.header
        require_same_run(checkpoint, self.settings)
        checkpoint.check_model(self.model)
        if header.step > self.total:
            raise FocusError(f"{checkpoint.path}: step: expected at most {self.total} iterations, got {header.step}")
        checkpoint.load_networks(self.networks)
        self.step, self.validated = header.step, {name: dict(values) for name, values in header.validation.items()}
        begun = [turn for turn in self.plan if turn.start < self.step]
        if begun:
            self._begin(begun[-1])
            restore_optimisers(self.optimisers, checkpoint)
            if begun[-1].end == self.step and self.folder is not None and not self._stage_file(begun[-1]).exists():
                self._save(begun[-1])
