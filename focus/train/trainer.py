"""The training loop: one network at a time, in the turns of `plan`, resumable at every iteration."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from focus import losses
from focus.data.batches import FaceBatch
from focus.errors import FocusError
from focus.eval import appearance_rmse, mask_scores, outlier_iou, shape_error
from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.nets import FeatureExtractor
from focus.train.checkpoint import Checkpoint, Header, Networks, save_checkpoint
from focus.train.config import Method, Settings
from focus.train.log import Logger, SilentLogger
from focus.train.schedule import Network, Turn, plan, rate_of, robust_sigma
from focus.train.sources import DataSource

LAST = "last.safetensors"
"""The checkpoint from which a run in this folder goes on."""


@dataclass
class Prediction:
    """What the networks say about a batch."""

    parameters: FaceParameters
    rendering: Rendering
    mask: Tensor
    """``[B, 1, S, S]`` in [0, 1]: the visible face, inside the rendered one."""


def face_mask(
    method: Method, batch: FaceBatch, rendering: Rendering, networks: Networks, *, sigma: float, cutoff: float
) -> Tensor:
    """The visible face by the rule of a method: the one thing in which methods differ. Gradients may pass through it.

    Returns:
        ``[B, 1, S, S]`` in [0, 1], inside the rendered face.
    """
    if method == "mofa":
        return rendering.mask
    if method == "pretrained":
        return losses.robust(batch.image, rendering.image.detach(), rendering.mask, sigma=sigma, cutoff=cutoff)[1]
    if method == "oracle":
        if batch.visible_mask is None:
            raise FocusError("method 'oracle' needs true masks, and these faces have none: take synthetic faces")
        return rendering.mask * batch.visible_mask
    return rendering.mask * networks.segmentation(rendering.image, batch.image, rendering.mask)


class Trainer:
    """Trains the two networks by the settings; see `focus.train.train` for a whole run with all of its parts.

    Args:
        settings: the run.
        model: the morphable model; shared, moved to `device`.
        networks: moved to `device`, trained in place.
        data: the faces.
        features: recognition features, moved to `device`.
        adaptation: the faces of the stage `adapt`; None: `data`.
        validation: faces that are never trained on; None: no validation.
        folder: of checkpoints; None: none are written.
        logger: what is told; None: nothing.
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
        folder: Path | None = None,
        logger: Logger | None = None,
        device: torch.device | str = "cpu",
        after_turn: Callable[[Trainer, Turn], None] | None = None,
    ) -> None:
        self.settings, self.data, self.adaptation = settings, data, adaptation or data
        self.device = torch.device(device)
        self.model, self.networks = model.to(self.device), networks.to(self.device)
        self.features = features.to(self.device) if isinstance(features, nn.Module) else features
        self.renderer = Renderer(self.model, settings.image_size)
        self.validation = None if validation is None else validation.to(self.device)
        self.folder, self.logger, self.after_turn = folder, logger or SilentLogger(), after_turn
        self.plan = plan(settings.stages, settings.method)
        self.step = 0
        self.validated: dict[str, Any] = {}
        self.optimisers: dict[Network, torch.optim.Optimizer] = {}
        self._stage = ""
        self._window = Window()
        self._guard = MaskGuard(settings)

    def run(self) -> bool:
        """Trains to the end of the plan. Returns False if a signal (Ctrl-C, SIGTERM) ended it before; it can then be resumed.

        Raises:
            FocusError: masks collapsed, or a number is not finite; the last good checkpoint is still there.
        """
        with stop_on_signals() as stopped:
            for turn in self.plan:
                if turn.end <= self.step:
                    continue
                self._begin(turn)
                while self.step < turn.end:
                    started = time.perf_counter()
                    self._iterate(turn)
                    self._window.seconds += time.perf_counter() - started
                    finished, stopping = self.step == turn.end, stopped.is_set()
                    saving = self._is_due(self.settings.log.checkpoint_every) or finished or stopping
                    if self._is_due(self.settings.log.every) or saving:
                        self._report(turn)  # Before saving: it stops the run where the numbers make no sense.
                    if self._is_due(self.settings.log.validate_every) or finished:
                        self._validate(turn)
                    if saving:
                        self._save(turn)
                    if stopping and self.step < self.plan[-1].end:
                        self.logger.message(f"stopped by a signal after iteration {self.step}; resume to go on")
                        return False
                if self.after_turn is not None:
                    self.after_turn(self, turn)
        return True

    def _begin(self, turn: Turn) -> None:
        """The network of this turn learns, the other one is frozen."""
        if turn.stage != self._stage:
            self._stage = turn.stage
            learning = {other.network for other in self.plan if other.stage == turn.stage}
            self.optimisers = {name: self._optimiser(name) for name in sorted(learning)}
        for name, network in self.networks.items():
            network.train(name == turn.network)
            network.requires_grad_(name == turn.network)

    def _iterate(self, turn: Turn) -> None:
        settings, iteration = self.settings, turn.iteration(self.step)
        source = self.adaptation if turn.stage == "adapt" else self.data
        batch = source.batch(turn.batch(self.step)).to(self.device)
        # Random numbers (dropout) follow from the iteration, so there is no generator state to keep.
        torch.manual_seed((settings.seed << 32) + self.step)
        if turn.stage == "initialise":
            loss, terms = self._initialisation_loss(batch, iteration / turn.total)
        elif turn.stage == "segmentation":
            loss, terms = self._pretraining_loss(batch)
        elif turn.network == "segmentation":
            loss, terms = self._segmentation_loss(batch, iteration)
        else:
            loss, terms = self._reconstruction_loss(batch)
        optimiser = self.optimisers[turn.network]
        for group in optimiser.param_groups:
            group["lr"] = rate_of(settings.optimiser, turn).at(iteration, turn.total)
        optimiser.zero_grad()
        loss.backward()
        if settings.optimiser.gradient_clip is not None:
            nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], settings.optimiser.gradient_clip)
        optimiser.step()
        self.step += 1
        self._window.add({"loss": loss.detach(), **terms})
        self._guard.add(terms.get("mask"))

    def _initialisation_loss(self, batch: FaceBatch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 1: L_R with the outlier-robust likelihood, after a warm-up without it."""
        parameters = self.networks.reconstruction(batch.image)
        rendering = self.renderer(parameters)
        return self._loss_of(batch, parameters, rendering, sigma=robust_sigma(self.settings.robust, progress))

    def _pretraining_loss(self, batch: FaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 2: the segmentation network learns the inliers of the outlier-robust rule."""
        robust = self.settings.robust
        with torch.no_grad():
            rendering = self.renderer(self.networks.reconstruction(batch.image))
            inliers = losses.robust(
                batch.image, rendering.image, rendering.mask, sigma=robust.sigma, cutoff=robust.cutoff
            )[1]
        logits = self.networks.segmentation.logits(rendering.image, batch.image, rendering.mask)
        loss = losses.mask_cross_entropy(logits, inliers, rendering.mask)
        return loss, {"mask": share(torch.sigmoid(logits), rendering.mask), "inliers": share(inliers, rendering.mask)}

    def _segmentation_loss(self, batch: FaceBatch, iteration: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 3, first part of a cycle: L_S for the mask of frozen reconstructions."""
        with torch.no_grad():
            rendering = self.renderer(self.networks.reconstruction(batch.image))
        mask = self.networks.segmentation(rendering.image, batch.image, rendering.mask)
        weights, ramp = self.settings.segmentation_weights, self.settings.binary_ramp
        if ramp:
            weights = replace(weights, binary=weights.binary * min(1.0, iteration / ramp))
        loss, terms = losses.segmentation_loss(
            target=batch.image, rendering=rendering, mask=mask, features=self.features, weights=weights
        )
        return loss, {**terms, "mask": share(mask, rendering.mask)}

    def _reconstruction_loss(self, batch: FaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 3, second part of a cycle: L_R over the pixels that the method trusts."""
        method, weights, robust = self.settings.method, self.settings.reconstruction_weights, self.settings.robust
        parameters = self.networks.reconstruction(batch.image)
        rendering = self.renderer(parameters)
        if method == "mofa":
            return self._loss_of(batch, parameters, rendering)
        if method == "pretrained":
            return self._loss_of(batch, parameters, rendering, sigma=robust.sigma)
        # The mask is a function of the render: L_area reaches the encoder through the frozen segmentation network.
        through = method == "focus" and (weights.area > 0 or self.settings.mask_gradient)
        with torch.set_grad_enabled(through):
            mask = face_mask(
                method, batch, rendering, self.networks, sigma=robust.sigma, cutoff=robust.cutoff
            )
        seen = mask if self.settings.mask_gradient else mask.detach()
        loss, terms = self._loss_of(batch, parameters, rendering, mask=seen)
        if through and weights.area:
            area = losses.area(rendering.mask, mask)
            loss, terms["area"] = loss + weights.area * area, area.detach()
        return loss, {**terms, "mask": share(mask, rendering.mask)}

    def _loss_of(
        self,
        batch: FaceBatch,
        parameters: FaceParameters,
        rendering: Rendering,
        *,
        mask: Tensor | None = None,
        sigma: float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """L_R without L_area."""
        return losses.reconstruction_loss(
            target=batch.image,
            target_landmarks=batch.landmarks,
            confidence=batch.landmark_weights,
            rendering=rendering,
            parameters=parameters,
            features=self.features,
            weights=replace(self.settings.reconstruction_weights, area=0.0),
            mask=mask,
            robust_sigma=sigma,
            robust_cutoff=self.settings.robust.cutoff,
        )

    @torch.no_grad()
    def predict(self, batch: FaceBatch, method: Method | None = None) -> Prediction:
        """Reconstructions of a batch on the trainer's device, and its masks by the rule of a method (None: that of the run)."""
        self.networks.eval()
        parameters = self.networks.reconstruction(batch.image)
        rendering = self.renderer(parameters)
        robust = self.settings.robust
        mask = face_mask(
            method or self.settings.method, batch, rendering, self.networks, sigma=robust.sigma, cutoff=robust.cutoff
        )
        return Prediction(parameters, rendering, mask)

    def _validate(self, turn: Turn) -> None:
        """Scores and a picture of the validation faces.

        The loss is L_R with the outlier-robust likelihood at its final sigma: one yardstick for all stages and methods.
        """
        if self.validation is None:
            return
        batch = self.validation
        untrained = self.settings.method == "focus" and turn.stage == "initialise"
        found = self.predict(batch, "pretrained" if untrained else None)
        rendering = found.rendering
        with torch.no_grad():
            loss, terms = self._loss_of(batch, found.parameters, rendering, sigma=self.settings.robust.sigma)
            scores = {"loss": loss, **terms, "mask": share(found.mask, rendering.mask)}
            if batch.visible_mask is not None:
                scores["f1"] = mask_scores(found.mask, batch.visible_mask, rendering.mask).f1.mean()
                scores["outlier_iou"] = outlier_iou(found.mask, batch.visible_mask, rendering.mask).mean()
            if batch.unoccluded is not None and batch.face_mask is not None:
                scores["appearance_rmse"] = appearance_rmse(rendering.image, batch.unoccluded, batch.face_mask).mean()
            if batch.neutral_vertices is not None:
                neutral = self.model.neutral_shape(found.parameters.identity)
                scores["shape_error_mm"] = shape_error(neutral, batch.neutral_vertices).mean()
        values = {name: float(value) for name, value in scores.items()}
        self.logger.scalars(self.step, "validation", values)
        self.validated["last"] = {"step": self.step, **values}
        if values["loss"] <= self.validated.get("best", values)["loss"]:
            self.validated["best"] = self.validated["last"]
        count = self.settings.log.pictures
        if count:
            image, face = batch.image[:count], rendering.mask[:count]
            overlay = face * rendering.image[:count] + (1 - face) * image
            rows = [image, rendering.image[:count], overlay, found.mask[:count]]
            self.logger.picture(self.step, f"{turn.stage}_{turn.network}", rows)
        self._begin(turn)

    def _report(self, turn: Turn) -> None:
        """Means of the losses since the last report; stops the run where they make no sense."""
        window, self._window = self._window, Window()
        means = window.means()
        broken = [name for name, value in means.items() if value != value or abs(value) == float("inf")]
        if broken:
            self._stop(
                f"not finite between iterations {self.step - window.count + 1} and {self.step} ({turn.stage}, {turn.network}): "
                f"{', '.join(broken)}. Lower the learning rate (optimiser), limit the gradient (optimiser.gradient_clip), or look at the "
                "faces of these iterations."
            )
        rate = self.optimisers[turn.network].param_groups[0]["lr"]
        per_second = window.count / window.seconds
        self.logger.scalars(
            self.step, f"{turn.stage}/{turn.network}", {**means, "rate": rate, "iterations_per_second": round(per_second, 3)}
        )
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        total = self.plan[-1].end
        self.logger.progress(self.step, total, f"{turn.stage} {turn.network}  {shown}", (total - self.step) / per_second)
        problem = self._guard.problem()
        if problem and turn.stage != "segmentation":
            self._stop(problem)

    def _stop(self, reason: str) -> None:
        kept = "" if self.folder is None else f" The last good checkpoint is {self.folder / LAST}."
        raise FocusError(f"training stopped at iteration {self.step}: {reason}{kept}")

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0

    def _optimiser(self, name: Network) -> torch.optim.Optimizer:
        parameters = list(dict(self.networks.items())[name].parameters())
        if self.settings.optimiser.name == "adam":
            return torch.optim.Adam(parameters)
        return torch.optim.Adadelta(parameters)

    def _save(self, turn: Turn) -> None:
        """Writes the checkpoint of the run, and at the end of a stage one of that name."""
        if self.folder is None:
            return
        header, tensors = self.state()
        if any(value.is_floating_point() and not bool(torch.isfinite(value).all()) for value in tensors.values()):
            self._stop("a weight is not finite. Lower the learning rate or limit the gradient (optimiser.gradient_clip).")
        save_checkpoint(self.folder / LAST, header, tensors)
        if all(other.stage != turn.stage for other in self.plan if other.start >= self.step):
            save_checkpoint(self.folder / f"{turn.stage}.safetensors", header, tensors)

    def state(self) -> tuple[Header, dict[str, Tensor]]:
        """Everything that the run needs to go on."""
        tensors = {
            f"{name}.{key}": value for name, network in self.networks.items() for key, value in network.state_dict().items()
        }
        numbers: dict[str, dict[str, float]] = {}
        for network, optimiser in self.optimisers.items():
            numbers[network] = {}
            for index, state in optimiser.state_dict()["state"].items():
                for key, value in state.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimiser.{network}.{key}.{index}"] = value
                    else:
                        numbers[network][f"{key}.{index}"] = value
        header = Header(
            settings=self.settings.to_dict(),
            model_name=self.model.name,
            model_fingerprint=self.model.fingerprint(),
            step=self.step,
            optimiser=numbers,
            validation=self.validated,
        )
        return header, tensors

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on where `checkpoint` was written, bit for bit on the CPU.

        Raises:
            FocusError: it is for inference only, of another face model, or of a run with other settings.
        """
        header = checkpoint.header
        if header.kind != "training":
            raise FocusError(f"{checkpoint.path}: holds no state of training; start a new run from it (settings.start)")
        checkpoint.check_model(self.model)
        changed = sorted(differences(decided(self.settings), decided(checkpoint.settings)))
        if changed:
            raise FocusError(
                f"{checkpoint.path}: written by a run with other settings ({', '.join(changed)}). Resume with the same ones, or start a "
                "new run from its weights (settings.start)."
            )
        checkpoint.load_networks(self.networks)
        self.step, self.validated = header.step, dict(header.validation)
        done = [turn for turn in self.plan if turn.start < self.step]
        if done:
            self._begin(done[-1])
            for name, optimiser in self.optimisers.items():
                self._restore(name, optimiser, checkpoint)

    def _restore(self, name: Network, optimiser: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
        state: dict[int, dict[str, Any]] = {}
        entries: dict[str, Any] = {**checkpoint.state(f"optimiser.{name}"), **checkpoint.header.optimiser.get(name, {})}
        for entry, value in entries.items():
            key, index = entry.rsplit(".", 1)
            state.setdefault(int(index), {})[key] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


class Window:
    """Sums of what iterations gave, on their device: no waiting for the device until they are read."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """One iteration. A value that is not finite stays in the sum."""
        self.count += 1
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Means over the iterations that gave a value."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


class MaskGuard:
    """Notices masks that call everything face, or nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.guard
        self._window = Window()
        self._mean: float | None = None

    def add(self, mask: Tensor | None) -> None:
        """The mean mask inside the face in one iteration; None where none was predicted."""
        if mask is None:
            return
        self._window.add({"mask": mask})
        if self._window.count == self.settings.window:
            self._mean = self._window.means()["mask"]
            self._window = Window()

    def problem(self) -> str | None:
        """What is wrong with the last whole window, and what to change."""
        limits = self.settings
        if self._mean is None or limits.lowest <= self._mean <= limits.highest:
            return None
        if self._mean > limits.highest:
            what = f"above {limits.highest} (guard.highest): everything is called face"
            remedy = "raise segmentation_weights.neighbor, or lower .area and .preserve; if nothing hides these faces, set guard.highest to 1"
        else:
            what = f"below {limits.lowest} (guard.lowest): everything is called hidden"
            remedy = "lower segmentation_weights.neighbor, raise .area or .preserve, ramp .binary (binary_ramp), or initialise for longer"
        return f"masks collapsed: their mean inside the face over {limits.window} iterations is {self._mean:.4f}, {what}; {remedy}."


def share(mask: Tensor, face: Tensor) -> Tensor:
    """Mean of a mask inside the rendered faces of the batch, detached."""
    return ((mask * face).sum() / face.sum().clamp(min=1)).detach()


def decided(settings: Settings) -> dict[str, Any]:
    """The settings that decide what a run computes: those of where it runs, what it writes and when it stops are left out."""
    return {
        name: value for name, value in settings.to_dict().items() if name not in ("log", "guard", "device", "threads", "start")
    }


def differences(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Names of the settings that differ."""
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{prefix}{name}.")
        elif a != b:
            yield prefix + name


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Inside, Ctrl-C and SIGTERM set the event and no more; a second Ctrl-C interrupts as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # Python delivers signals to the main thread only.
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
