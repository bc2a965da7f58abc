"""The training loop: one network at a time, in the turns of `plan`, resumable after every iteration."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from focus import losses
from focus.data.batches import FaceBatch
from focus.data.patches import patched
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.nets import FeatureExtractor
from focus.report.panels import reconstruction_sheet
from focus.train.checkpoint import Checkpoint, Header, Networks, save_checkpoint
from focus.train.config import Settings
from focus.train.distributed import average_gradients, place, total
from focus.train.log import Logger, SilentLogger
from focus.train.methods import METHODS, Method, mask_rule, require_true_masks
from focus.train.monitor import Ending, MaskGuard, Window, empty_images, stop_on_signals
from focus.train.record import machine, require_same_run
from focus.train.schedule import Network, Turn, plan, rate_of, robust_sigma
from focus.train.scores import Prediction, share, true_scores
from focus.train.sources import Batches, DataSource, WorkersLostError, out_of_memory
from focus.train.state import optimiser_state, restore_optimisers

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
        validation: faces that are never trained on; None: no validation.
        adaptation_validation: the same for the stage `adapt`; None: `validation`.
        folder: for checkpoints; None: none are written.
        logger: is told how it goes; None: nobody.
        device: where to compute.
        after_turn: called with the trainer and the turn at the end of each turn.
        data_digests: what was read, for the checkpoint.
    """

    def __init__(
        self,
        settings: Settings,
        model: MorphableModel,
        networks: Networks,
        data: DataSource,
        features: FeatureExtractor,
        *,
        adaptation: DataSource | None = None,
        validation: FaceBatch | None = None,
        adaptation_validation: FaceBatch | None = None,
        folder: Path | None = None,
        logger: Logger | None = None,
        device: torch.device | str = "cpu",
        after_turn: Callable[[Trainer, Turn], None] | None = None,
        data_digests: Mapping[str, str] | None = None,
    ) -> None:
        self.settings, self.data, self.adaptation = settings, data, adaptation or data
        self._traits = METHODS[settings.method]
        self.device = torch.device(device)
        self.model, self.networks = model.to(self.device), networks.to(self.device)
        self.features = features.to(self.device) if isinstance(features, nn.Module) else features
        self.renderer = Renderer(self.model, settings.image_size)
        # For L_R only: masks, scores and pictures are those of pixel centres, as without antialiasing.
        self._learning_renderer = Renderer(self.model, settings.image_size, antialias=settings.antialias)
        self.validation, self.adaptation_validation = validation, adaptation_validation or validation
        self.folder, self.logger, self.after_turn = folder, logger or SilentLogger(), after_turn
        self.plan = plan(settings.stages, settings.method)
        self.total = self.plan[-1].end if self.plan else 0
        self.process, self.processes = place()
        self.step = 0
        """Iterations done."""
        self.ending: Ending | None = None
        self.validated: dict[str, dict[str, float]] = {}
        self.optimisers: dict[Network, torch.optim.Optimizer] = {}
        self._fingerprint = model.fingerprint()
        self._data_digests = dict(data_digests or {})
        self._stage = ""
        self._whole = True
        """Whether the weights are those of a number of whole iterations; False while an optimiser is at work."""
        self._undo: list[tuple[Tensor, Tensor]] = []
        """Buffers (statistics of BatchNorm) and their values before the iteration that is under way."""
        self._window = Window()
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
        log, told, workers = self.settings.log, self.logger.message, self.settings.workers
        sources = (self.data, self.adaptation)
        with stop_on_signals() as stopped, Batches(sources, self._order, workers=workers, told=told) as batches:
            for turn in self.plan:
                if turn.end <= self.step:
                    continue
                self._begin(turn)
                while self.step < turn.end:
                    with self._saved_if_it_fails(turn):
                        self._window.start()
                        self._iterate(turn, next(batches).to(self.device))
                        finished, stopping = self.step == turn.end, self._agree(stopped.is_set())
                        saving = finished or stopping or self.step % log.checkpoint_every == 0
                        if saving or self.step % log.every == 0:
                            self._report(turn)  # Before saving: it ends the run where the numbers make no sense.
                        if finished or self.step % log.validate_every == 0:
                            self._validate(turn)
                        if saving:
                            self._save(turn)
                    if stopping and self.step < self.total:
                        self.ending = Ending.by(stopped.number, self.step, self.total)
                        told(self.ending.text)
                        return False
                if self.after_turn is not None:
                    self.after_turn(self, turn)
        return True

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
            elif not isinstance(error, FocusError):
                self._rescue(turn)  # a fault of ours, or a process that went away: its traceback is wanted
                raise
            raise StoppedError(
                f"training stopped after iteration {self.step}: {reason.rstrip('.')}.{self._rescue(turn)}"
            ) from error

    def _rescue(self, turn: Turn) -> str:
        """Saves what is done, if it is whole, and says what is kept."""
        with contextlib.suppress(FocusError, RuntimeError, MemoryError):  # as well as it goes
            if self._whole and self.step:
                for buffer, before in self._undo:
                    buffer.copy_(before)
                self._save(turn)
        return self._kept()

    def _begin(self, turn: Turn) -> None:
        """The network of this turn learns, the other one is frozen."""
        if turn.stage != self._stage:
            self._stage = turn.stage
            self.optimisers = {
                name: self._optimiser(network)
                for name, network in self.networks.items()
                if any((other.stage, other.network) == (turn.stage, name) for other in self.plan)
            }
            highest = turn.stage in ("joint", "adapt") and self._traits.unsupervised_masks
            self._guard = MaskGuard(self.settings.guard, highest=highest) if turn.stage != "initialise" else None
        for name, network in self.networks.items():
            network.train(name == turn.network)
            network.requires_grad_(name == turn.network)

    def _optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        if self.settings.optimiser.name == "adam":
            return torch.optim.Adam(network.parameters())
        return torch.optim.Adadelta(network.parameters())

    def _order(self) -> Iterator[tuple[int, int]]:
        """(number of the source, number of the batch) for the rest of the plan."""
        return (
            (int(turn.stage == "adapt"), turn.batch(step))
            for done in (self.step,)  # as it is now, not when the last one is asked for
            for turn in self.plan
            for step in range(max(turn.start, done), turn.end)
        )

    def _iterate(self, turn: Turn, batch: FaceBatch) -> None:
        settings, iteration = self.settings, turn.iteration(self.step)
        # Random numbers (dropout) follow from the iteration: no state of a generator to keep.
        torch.manual_seed((settings.seed << 32) + self.step * self.processes + self.process)
        self._undo = [(buffer, buffer.clone()) for buffer in self.networks.of(turn.network).buffers()]
        if turn.stage == "initialise":
            loss, terms = self._initialisation_loss(batch, iteration / turn.total)
        elif turn.stage == "segmentation" or (turn.network == "segmentation" and self._traits.true_masks):
            loss, terms = self._supervised_loss(batch)
        elif turn.network == "segmentation":
            ramp = settings.binary_ramp if turn.stage == "joint" else 0
            loss, terms = self._segmentation_loss(batch, min(1.0, iteration / ramp) if ramp else 1.0)
        else:
            loss, terms = self._reconstruction_loss(batch, turn.batch(self.step))
        optimiser = self.optimisers[turn.network]
        rate = rate_of(settings.optimiser, turn).at(iteration, turn.total)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        parameters = optimiser.param_groups[0]["params"]
        average_gradients(parameters)
        if settings.optimiser.gradient_clip is not None:
            nn.utils.clip_grad_norm_(parameters, settings.optimiser.gradient_clip)
        self._whole = False
        optimiser.step()
        self._whole, self._undo = True, []
        self.step += 1
        self._window.add({"loss": loss.detach(), **terms})
        if self._guard is not None and "mask" in terms:
            self._guard.add(terms["mask"], terms.get("empty"))

    def _initialisation_loss(self, batch: FaceBatch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """First stage: L_R with the outlier-robust likelihood, after a warm-up without it."""
        parameters = self.networks.reconstruction(batch.image)
        rendering = self._learning_renderer(parameters)
        sigma = robust_sigma(self.settings.robust, progress)
        loss, terms = self._loss_of(batch, parameters, rendering, sigma=sigma)
        if sigma is not None:
            terms["inliers"] = share(self._inliers(batch, rendering, sigma), rendering.mask)
        return loss, terms

    def _supervised_loss(self, batch: FaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Second stage: the segmentation network learns given masks, the inliers of the outlier-robust rule. With the
        method `supervised` these are the true masks, and so they are in the third stage.
        """
        with torch.no_grad():
            rendering = self.renderer(self.networks.reconstruction(batch.image))
        given = self.mask_of(batch, rendering, "oracle" if self._traits.true_masks else "pretrained")
        logits = self.networks.segmentation.logits(rendering.image, batch.image, rendering.mask)
        loss = losses.mask_cross_entropy(logits, given, rendering.mask)
        masks = {"mask": torch.sigmoid(logits), "given": given}
        shares = {name: share(mask, rendering.mask) for name, mask in masks.items()}
        return loss, {**shares, "empty": empty_images(masks["mask"], rendering.mask)}

    def _segmentation_loss(self, batch: FaceBatch, ramp: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Third stage, first part of a cycle: L_S, for the mask of frozen reconstructions."""
        with torch.no_grad():
            rendering = self.renderer(self.networks.reconstruction(batch.image))
        mask = self.networks.segmentation(rendering.image, batch.image, rendering.mask)
        weights = self.settings.segmentation_weights
        loss, terms = losses.segmentation_loss(
            target=batch.image,
            rendering=rendering,
            mask=mask,
            features=self.features,
            weights=replace(weights, binary=ramp * weights.binary),
        )
        return loss, {**terms, "mask": share(mask, rendering.mask), "empty": empty_images(mask, rendering.mask)}

    def _reconstruction_loss(self, batch: FaceBatch, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Third stage, second part of a cycle: L_R over the pixels that the method trusts, its one difference.

        Args:
            batch: the faces.
            number: of the batch, from which patches follow.
        """
        settings, traits = self.settings, self._traits
        image = batch.image
        if traits.patches is not None:
            first = number * settings.batch_size + self.process * len(batch)
            image = patched(
                image, traits.patches, seed=settings.seed, first_index=first, settings=settings.data.patches
            )
        parameters = self.networks.reconstruction(image)
        rendering = self._learning_renderer(parameters)
        if traits.mask == "whole":
            return self._loss_of(batch, parameters, rendering)
        # A predicted mask is a function of the render: L_area reaches the encoder through the segmentation network.
        through = traits.segments and (settings.reconstruction_weights.area > 0 or settings.mask_gradient)
        with torch.set_grad_enabled(through):
            mask = self.mask_of(batch, rendering)
        if traits.mask == "robust":
            loss, terms = self._loss_of(batch, parameters, rendering, sigma=settings.robust.sigma)
        else:
            loss, terms = self._loss_of(batch, parameters, rendering, mask=mask)
        return loss, {**terms, "mask": share(mask, rendering.mask), "empty": empty_images(mask, rendering.mask)}

    def _loss_of(
        self,
        batch: FaceBatch,
        parameters: FaceParameters,
        rendering: Rendering,
        *,
        mask: Tensor | None = None,
        sigma: float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_R; with L_area where the method predicts the mask."""
        weights = self.settings.reconstruction_weights
        return losses.reconstruction_loss(
            target=batch.image,
            target_landmarks=batch.landmarks,
            confidence=batch.landmark_weights,
            rendering=rendering,
            parameters=parameters,
            features=self.features,
            weights=weights if self._traits.segments else replace(weights, area=0.0),
            mask=mask,
            mask_gradient=self.settings.mask_gradient,
            robust_sigma=sigma,
            robust_cutoff=self.settings.robust.cutoff,
        )

    @torch.no_grad()
    def _inliers(self, batch: FaceBatch, rendering: Rendering, sigma: float) -> Tensor:
        """The mask of the outlier-robust rule, ``[B, 1, S, S]`` in {0, 1}."""
        cutoff = self.settings.robust.cutoff
        return losses.robust(batch.image, rendering.image, rendering.mask, sigma=sigma, cutoff=cutoff)[1]

    def mask_of(self, batch: FaceBatch, rendering: Rendering, method: Method | None = None) -> Tensor:
        """The visible face by the rule of a method (None: that of the run).

        Args:
            batch: photos; with true masks for the methods that learn from them.
            rendering: of their reconstructions. Where a network makes the mask, gradients pass from it to them.
            method: whose rule.

        Returns:
            ``[B, 1, S, S]`` in [0, 1], zero outside the rendered face.
        """
        method = method or self.settings.method
        require_true_masks(method, given=batch.visible_mask is not None)
        robust = self.settings.robust
        rule = mask_rule(method, self.networks.segmentation, sigma=robust.sigma, cutoff=robust.cutoff)
        face = (rendering.mask > 0).to(rendering.mask)  # the losses weigh with a soft outline themselves
        return face * rule(batch, replace(rendering, mask=face))

    @torch.no_grad()
    def predict(self, batch: FaceBatch, method: Method | None = None) -> Prediction:
        """Reconstructions of a batch that is on the trainer's device, and their masks by the rule of a method."""
        modes = [(network, network.training) for _, network in self.networks.items()]
        self.networks.eval()
        parameters = self.networks.reconstruction(batch.image)
        rendering = self.renderer(parameters)
        mask = self.mask_of(batch, rendering, method)
        for network, mode in modes:
            network.train(mode)
        return Prediction(parameters, rendering, mask)

    def _report(self, turn: Turn) -> None:
        """Means since the last report go to the log. Ends the run where they make no sense."""
        window, self._window = self._window, Window()
        means, seconds = window.means(), window.seconds()
        wrong = [name for name, value in means.items() if not math.isfinite(value)]
        if wrong:
            self._stop(
                f"{', '.join(wrong)} not finite between iterations {self.step - window.count + 1} and {self.step} "
                f"({turn.stage}, {turn.network}). Lower its learning rate (optimiser), limit the gradient "
                "(optimiser.gradient_clip), or look at the faces of these iterations."
            )
        rate = self.optimisers[turn.network].param_groups[0]["lr"]
        kind = f"{turn.stage}/{turn.network}"
        self.logger.scalars(self.step, kind, {**means, "rate": rate, "iterations_per_second": round(1 / seconds, 3)})
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
        loss, scores = self._loss_of(batch, found.parameters, found.rendering, sigma=self.settings.robust.sigma)
        scores |= {"loss": loss, "mask": share(found.mask, face), "empty": empty_images(found.mask, face)}
        scores |= true_scores(batch, found, self.model)
        values = {"step": self.step, **{name: float(value) for name, value in scores.items()}}
        self.logger.scalars(self.step, "validation", values)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        if "loss" in finite:
            self.validated["last"] = finite
            if finite["loss"] <= self.validated.get("best", finite)["loss"]:
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
            save_checkpoint(self.folder / LAST, header, tensors)
        except FocusError as error:
            raise NotSavedError(str(error)) from error

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
            machine=machine(self.device),
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
