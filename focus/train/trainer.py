"""The training loop: one network at a time, in the turns of `plan`, resumable after every iteration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from focus import losses
from focus.data.batches import FaceBatch
from focus.data.patches import patched
from focus.errors import FocusError
from focus.eval import appearance_rmse, mask_scores, outlier_iou, shape_error
from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.nets import FeatureExtractor
from focus.report.panels import reconstruction_sheet
from focus.train.checkpoint import Checkpoint, Header, Networks, save_checkpoint
from focus.train.config import Settings
from focus.train.distributed import average_gradients, place, total
from focus.train.log import Logger, SilentLogger
from focus.train.methods import METHODS, Method, mask_rule, require_true_masks
from focus.train.monitor import MaskGuard, Window, empty_images, stop_on_signals
from focus.train.schedule import Network, Turn, plan, rate_of, robust_sigma
from focus.train.sources import DataSource, load

LAST = "last.safetensors"
"""The checkpoint from which the run of a folder goes on."""

_WHERE_AND_WHAT_FOR = ("log", "guard", "device", "threads", "workers", "start")
"""Settings that change nothing about what a run computes."""


@dataclass
class Prediction:
    """What the networks say about a batch."""

    parameters: FaceParameters
    rendering: Rendering
    mask: Tensor
    """``[B, 1, S, S]`` in [0, 1]: the visible face, inside the rendered one."""


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
        self.validated: dict[str, Any] = {}
        self.optimisers: dict[Network, torch.optim.Optimizer] = {}
        self._fingerprint = model.fingerprint()
        self._stage = ""
        self._window = Window()
        self._guard: MaskGuard | None = None
        self._pace: dict[tuple[str, str], float] = {}

    def run(self) -> bool:
        """Trains to the end of the plan.

        Returns:
            False if a signal (Ctrl-C, SIGTERM) ended the run before; `resume` goes on with its checkpoint.

        Raises:
            FocusError: the masks collapsed, or a number is not finite. The last good checkpoint is still there.
        """
        log = self.settings.log
        with stop_on_signals() as stopped:
            batches = self._batches()
            for turn in self.plan:
                if turn.end <= self.step:
                    continue
                self._begin(turn)
                while self.step < turn.end:
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
                        self.logger.message(f"stopped by a signal after iteration {self.step} of {self.total}")
                        return False
                if self.after_turn is not None:
                    self.after_turn(self, turn)
        return True

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

    def _batches(self) -> Iterator[FaceBatch]:
        """The batches of the rest of the plan."""
        order = (
            (int(turn.stage == "adapt"), turn.batch(step))
            for turn in self.plan
            for step in range(max(turn.start, self.step), turn.end)
        )
        return load((self.data, self.adaptation), order, workers=self.settings.workers)

    def _iterate(self, turn: Turn, batch: FaceBatch) -> None:
        settings, iteration = self.settings, turn.iteration(self.step)
        # Random numbers (dropout) follow from the iteration: no state of a generator to keep.
        torch.manual_seed((settings.seed << 32) + self.step * self.processes + self.process)
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
        optimiser.step()
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
        if self.processes == 1:
            return stopping
        return bool(total(torch.tensor(float(stopping), dtype=torch.float32, device=self.device)) > 0)

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
        if batch.visible_mask is not None:
            scores["f1"] = mask_scores(found.mask, batch.visible_mask, face).f1.mean()
            scores["outlier_iou"] = outlier_iou(found.mask, batch.visible_mask, face).mean()
        if batch.unoccluded is not None and batch.face_mask is not None:
            scores["appearance_rmse"] = appearance_rmse(found.rendering.image, batch.unoccluded, batch.face_mask).mean()
        if batch.neutral_vertices is not None:
            neutral = self.model.neutral_shape(found.parameters.identity)
            scores["shape_error_mm"] = shape_error(neutral, batch.neutral_vertices).mean()
        values = {"step": self.step, **{name: float(value) for name, value in scores.items()}}
        self.logger.scalars(self.step, "validation", values)
        self.validated["last"] = values
        if values["loss"] <= self.validated.get("best", values)["loss"]:
            self.validated["best"] = values
        count = self.settings.log.pictures
        if count:
            sheet = reconstruction_sheet(batch, found.rendering, found.mask, count)
            self.logger.picture(self.step, f"{turn.stage}_{turn.network}", sheet)

    def _save(self, turn: Turn) -> None:
        """Writes the checkpoint of the run and, at the end of a stage, one that keeps its name."""
        if self.folder is None or self.process:
            return
        header, tensors = self.state()
        self._require_finite(tensors.values())
        save_checkpoint(self.folder / LAST, header, tensors)
        if not any(other.stage == turn.stage and other.end > self.step for other in self.plan):
            save_checkpoint(self.folder / f"{turn.stage}.safetensors", header, tensors)

    def _require_finite(self, weights: Iterable[Tensor]) -> None:
        if not all(bool(torch.isfinite(value).all()) for value in weights):
            self._stop(
                "a weight is not finite. Lower the learning rate (optimiser) or limit the gradient "
                "(optimiser.gradient_clip)."
            )

    def _stop(self, reason: str) -> NoReturn:
        kept = (
            f" The last good checkpoint is {self.folder / LAST}."
            if self.folder and (self.folder / LAST).exists()
            else ""
        )
        raise FocusError(f"training stopped after iteration {self.step}: {reason}{kept}")

    def state(self) -> tuple[Header, dict[str, Tensor]]:
        """Everything that the run needs to go on, for `save_checkpoint`."""
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, dict[str, float]] = {}
        for name, network in self.networks.items():
            tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            numbers[name] = {}
            for index, entries in optimiser.state_dict()["state"].items():
                for key, value in entries.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimiser.{name}.{key}.{index}"] = value
                    else:
                        numbers[name][f"{key}.{index}"] = value
        header = Header(
            settings=self.settings.to_dict(),
            model_name=self.model.name,
            model_fingerprint=self._fingerprint,
            step=self.step,
            optimiser=numbers,
            validation=self.validated,
        )
        return header, tensors

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on where `checkpoint` was written: on the CPU, `run` then computes the same bits as without the break.

        Raises:
            FocusError: it is for inference only, of another face model, or of a run with other settings.
        """
        header = checkpoint.header
        if header.kind != "training":
            raise FocusError(
                f"{checkpoint.path}: made for inference, without the state of a run. Start a new run from its weights "
                "(settings.start)."
            )
        checkpoint.check_model(self.model)
        changed = sorted(_differences(what_it_computes(self.settings), what_it_computes(checkpoint.settings)))
        if changed:
            raise FocusError(
                f"{checkpoint.path}: written by a run with other settings ({', '.join(changed)}). Resume with the same "
                "ones, or start a new run from its weights (settings.start)."
            )
        checkpoint.load_networks(self.networks)
        self.step, self.validated = header.step, dict(header.validation)
        begun = [turn for turn in self.plan if turn.start < self.step]
        if begun:
            self._begin(begun[-1])
            for name, optimiser in self.optimisers.items():
                state: dict[int, dict[str, Any]] = {}
                entries = {**checkpoint.state(f"optimiser.{name}"), **header.optimiser.get(name, {})}
                for entry, value in entries.items():
                    key, index = entry.rsplit(".", 1)
                    state.setdefault(int(index), {})[key] = value
                optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def share(mask: Tensor, face: Tensor) -> Tensor:
    """Mean of a mask inside the rendered faces of the batch; no gradient."""
    return ((mask * face).sum() / face.sum().clamp(min=1)).detach()


def what_it_computes(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a run computes."""
    return {name: value for name, value in settings.to_dict().items() if name not in _WHERE_AND_WHAT_FOR}


def _differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the settings that differ."""
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name
