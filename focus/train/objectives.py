"""What the networks minimise in each turn of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from focus import losses
from focus.data.batches import FaceBatch
from focus.data.lessons import Lessons, lessons_of
from focus.data.patches import patched
from focus.face import FaceParameters, MorphableModel, Renderer, Rendering
from focus.nets import FeatureExtractor
from focus.train.checkpoint import Networks
from focus.train.config import Settings
from focus.train.distributed import place
from focus.train.inference import relit
from focus.train.methods import METHODS, Method, mask_rule, require_true_masks
from focus.train.monitor import empty_images
from focus.train.schedule import Turn, robust_sigma
from focus.train.scores import Prediction, share

Some = TypeVar("Some", FaceBatch, Tensor)


def disturbed(face: FaceParameters, strength: float, expression_prior: str = "normal") -> FaceParameters:
    """B faces that are wrong in the way in which those of photos are that a network has not learnt from.

    On few photos the reconstruction network is nearly right, on others it is not: a segmentation network that has seen
    the first alone calls hidden what is merely lit otherwise. By torch's random numbers.

    Args:
        face: of the network.
        strength: 1: about what 80 photos leave on others (docs/log.md); each face gets 0 to 1.5 times as much.
        expression_prior: of the face model.
    """
    if not strength:
        return face

    def noise(like: Tensor, deviation: float) -> Tensor:
        much = torch.rand(like.shape[0], *(1,) * (like.dim() - 1), dtype=like.dtype, device=like.device)
        return 1.5 * strength * deviation * much * torch.randn_like(like)

    bands = face.lighting.new_tensor(_BANDS) * face.lighting[..., :1].abs()
    expression = face.expression + noise(face.expression, _DEVIATIONS["expression"])
    return FaceParameters(
        identity=face.identity + noise(face.identity, _DEVIATIONS["identity"]),
        expression=expression.clamp(0, 1) if expression_prior == "unit_interval" else expression,
        albedo=face.albedo + noise(face.albedo, _DEVIATIONS["albedo"]),
        rotation=face.rotation + noise(face.rotation, _DEVIATIONS["rotation"]),
        translation=face.translation + noise(face.translation, 1.0) * face.translation.new_tensor(_DEVIATIONS_OF_PLACE),
        lighting=(face.lighting + noise(face.lighting, 1.0) * bands)
        * torch.exp(noise(face.lighting[:, :1, :1], _DEVIATIONS["brightness"]))
        * torch.exp(noise(face.lighting[:, :, :1], _DEVIATIONS["tint"])),
    )


_DEVIATIONS = {
    "identity": 0.4,
    "expression": 0.3,
    "albedo": 0.4,
    "rotation": 0.06,
    "brightness": 0.1,
    "tint": 0.05,
}
_DEVIATIONS_OF_PLACE = (2.0, 2.0, 20.0)
"""Millimetres."""
_BANDS = (0.0, 0.08, 0.08, 0.08, 0.03, 0.03, 0.03, 0.03, 0.03)
"""Of each harmonic, relative to the first."""


@dataclass(frozen=True)
class Part:
    """One of several parts of a batch that are of one size."""

    index: int
    parts: int

    def of(self, batch: Some) -> Some:
        """Its faces."""
        size = len(batch) // self.parts
        return batch if self.parts == 1 else batch[self.index * size : (self.index + 1) * size]


class Objectives:
    """The losses of a run, and its masks.

    Args:
        settings: the run.
        model: the face, where the networks are.
        networks: that learn.
        features: recognition features, where the networks are.
    """

    def __init__(
        self, settings: Settings, model: MorphableModel, networks: Networks, features: FeatureExtractor
    ) -> None:
        self.settings, self.model, self.networks, self.features = settings, model, networks, features
        self._traits = METHODS[settings.method]
        self.renderer = Renderer(model, settings.image_size)
        # For L_R only: masks, scores and pictures are those of pixel centres, as without antialiasing.
        self._learning_renderer = Renderer(model, settings.image_size, antialias=settings.antialias)

    def constants(self, turn: Turn, step: int) -> tuple[float | None, ...] | None:
        """The numbers by which the losses of two iterations of one turn differ; None where there is more."""
        settings, taught = self.settings, self.settings.teacher != "none"
        if turn.network == "segmentation" and taught and (settings.relight or settings.disturbance):
            return None  # light is solved for on the processor, face by face; disturbances have constants to be copied
        if turn.stage == "initialise":
            return (None if taught else robust_sigma(settings.robust, turn.iteration(step) / turn.total),)
        if turn.network == "reconstruction":
            return None if self._traits.patches or self._traits.mask == "skin" else ()
        return (self._ramp(turn, step),)

    def _ramp(self, turn: Turn, step: int) -> float:
        """The factor on the weight of L_binary."""
        ramp = self.settings.binary_ramp if turn.stage == "joint" else 0
        return min(1.0, turn.iteration(step) / ramp) if ramp else 1.0

    def of_turn(
        self, turn: Turn, step: int, batch: FaceBatch, part: Part | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of iteration `step` of a turn, and its terms by name.

        Args:
            turn: which network learns what.
            step: number of the iteration.
            batch: all of its faces.
            part: of which the loss is; None: of all.
        """
        whole, batch = batch, batch if part is None else part.of(batch)
        # Every other face of the whole is lit anew, this one first.
        first = 0 if part is None else part.index * len(batch) % 2
        settings, iteration = self.settings, turn.iteration(step)
        taught = settings.teacher != "none"
        anchored = taught and turn.stage == "joint" and settings.anchor > 0
        if turn.stage == "initialise":
            return self._teaching_loss(batch) if taught else self._initialisation_loss(batch, iteration / turn.total)
        if turn.stage in ("segmentation", "again") and taught:
            return self._taught_masks_loss(batch, first)
        if turn.stage == "segmentation" or (turn.network == "segmentation" and self._traits.true_masks):
            return self._supervised_loss(batch)
        if turn.network == "segmentation":
            return self._segmentation_loss(batch, self._ramp(turn, step), anchored=anchored, first=first)
        image = self._patched(whole.image, turn.batch(step))
        return self._trusting_loss(batch, image if part is None else part.of(image), anchored=anchored)

    def _patched(self, image: Tensor, number: int) -> Tensor:
        """What the reconstruction network sees of batch `number`, from which patches follow."""
        kind, settings = self._traits.patches, self.settings
        if kind is None:
            return image
        first = number * settings.batch_size + place()[0] * len(image)
        return patched(image, kind, seed=settings.seed, first_index=first, settings=settings.data.patches)

    def _initialisation_loss(self, batch: FaceBatch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """First stage: L_R with the outlier-robust likelihood, after a warm-up without it."""
        parameters = self.networks.encode(batch.image)
        rendering = self._learning_renderer(parameters)
        sigma = robust_sigma(self.settings.robust, progress)
        loss, terms = self.reconstruction_loss(batch, parameters, rendering, sigma=sigma)
        if sigma is not None:
            terms["inliers"] = share(self._inliers(batch, rendering, sigma), rendering.mask)
        return loss, terms

    def _teaching_loss(self, batch: FaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """First stage with a teacher: L_T, by its faces."""
        parameters = self.networks.encode(batch.image)
        return self._face_lesson(batch, parameters, self.renderer(parameters))

    def _face_lesson(
        self, batch: FaceBatch, parameters: FaceParameters, rendering: Rendering
    ) -> tuple[Tensor, dict[str, Tensor]]:
        lessons = lessons_of(batch)
        return losses.teaching_loss(
            target=batch.image,
            rendering=rendering,
            parameters=parameters,
            model=self.model,
            expected=lessons.parameters,
            seen=lessons.known * lessons.mask,
            weight=lessons.weight,
            weights=self.settings.teaching_weights,
        )

    def _taught_masks_loss(self, batch: FaceBatch, first: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Second stage with a teacher: the segmentation network learns its masks, on reconstructions of the network."""
        lessons = lessons_of(batch)
        rendering = self._seen_anew(batch, lessons, first)
        logits = self.networks.logits(rendering.image, batch.image, rendering.mask)
        said = rendering.mask * lessons.known
        loss = self._mask_lesson(logits, rendering, lessons)
        masks = {"mask": torch.sigmoid(logits), "given": lessons.mask}
        shares = {name: share(mask, said) for name, mask in masks.items()}
        return loss, {**shares, "empty": empty_images(masks["mask"], rendering.mask)}

    def _mask_lesson(self, logits: Tensor, rendering: Rendering, lessons: Lessons) -> Tensor:
        said, odds = rendering.mask * lessons.known, self.settings.teaching_weights.seen
        return losses.mask_cross_entropy(logits, lessons.mask, said, lessons.weight, seen=odds)

    @torch.no_grad()
    def _seen_anew(self, batch: FaceBatch, lessons: Lessons, first: int) -> Rendering:
        """Reconstructions of the network as they are of photos that it has not learnt from."""
        found = self.networks.encode(batch.image)
        found = disturbed(found, self.settings.disturbance, self.model.expression_prior)
        rendering: Rendering = self.renderer(found)
        if self.settings.relight:  # every other face, as they are seen when the masks are asked for again
            seen = lessons.known * lessons.mask
            rendering = self.renderer(relit(batch.image, found, rendering, self.model, seen, every=2, first=first))
        return rendering

    def _supervised_loss(self, batch: FaceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Second stage: the segmentation network learns given masks, the inliers of the outlier-robust rule. With the
        method `supervised` these are the true masks, and so they are in the third stage.
        """
        with torch.no_grad():
            rendering = self.renderer(self.networks.encode(batch.image))
        given = self.mask_of(batch, rendering, "oracle" if self._traits.true_masks else "pretrained")
        logits = self.networks.logits(rendering.image, batch.image, rendering.mask)
        loss = losses.mask_cross_entropy(logits, given, rendering.mask)
        masks = {"mask": torch.sigmoid(logits), "given": given}
        shares = {name: share(mask, rendering.mask) for name, mask in masks.items()}
        return loss, {**shares, "empty": empty_images(masks["mask"], rendering.mask)}

    def _segmentation_loss(
        self, batch: FaceBatch, ramp: float, *, anchored: bool = False, first: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Third stage, first part of a cycle: L_S, for the mask of frozen reconstructions; with lessons beside it, of
        reconstructions as they are of other photos.
        """
        if anchored:
            rendering = self._seen_anew(batch, lessons_of(batch), first)
        else:
            with torch.no_grad():
                rendering = self.renderer(self.networks.encode(batch.image))
        logits = self.networks.logits(rendering.image, batch.image, rendering.mask)
        mask = torch.sigmoid(logits)
        weights = self.settings.segmentation_weights
        loss, terms = losses.segmentation_loss(
            target=batch.image,
            rendering=rendering,
            mask=mask,
            features=self.features,
            weights=replace(weights, binary=ramp * weights.binary),
        )
        if anchored:
            lesson = self._mask_lesson(logits, rendering, lessons_of(batch))
            loss, terms["lesson"] = loss + self.settings.anchor * lesson, lesson.detach()
        return loss, {**terms, "mask": share(mask, rendering.mask), "empty": empty_images(mask, rendering.mask)}

    def _trusting_loss(
        self, batch: FaceBatch, image: Tensor, *, anchored: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Third stage, second part of a cycle: L_R over the pixels that the method trusts, its one difference.

        Args:
            batch: the faces.
            image: what the reconstruction network sees of them.
            anchored: add the faces of the teacher.
        """
        settings, traits = self.settings, self._traits
        parameters = self.networks.encode(image)
        rendering = self._learning_renderer(parameters)
        if traits.mask == "whole":
            return self.reconstruction_loss(batch, parameters, rendering)
        # A predicted mask is a function of the render: L_area reaches the encoder through the segmentation network.
        through = traits.segments and (settings.reconstruction_weights.area > 0 or settings.mask_gradient)
        with torch.set_grad_enabled(through):
            mask = self.mask_of(batch, rendering)
        if traits.mask == "robust":
            loss, terms = self.reconstruction_loss(batch, parameters, rendering, sigma=settings.robust.sigma)
        else:
            loss, terms = self.reconstruction_loss(batch, parameters, rendering, mask=mask)
        if anchored:
            lesson, _ = self._face_lesson(batch, parameters, rendering)
            loss, terms["lesson"] = loss + self.settings.anchor * lesson, lesson.detach()
        return loss, {**terms, "mask": share(mask, rendering.mask), "empty": empty_images(mask, rendering.mask)}

    def reconstruction_loss(
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
        if self.settings.relight and METHODS[method or self.settings.method].segments:
            parameters = relit(batch.image, parameters, rendering, self.model, mask)
            rendering = self.renderer(parameters)
            mask = self.mask_of(batch, rendering, method)
        for network, mode in modes:
            network.train(mode)
        return Prediction(parameters, rendering, mask)
