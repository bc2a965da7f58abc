"""What the networks say about a batch, and how it scores where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from focus.data.batches import FaceBatch
from focus.eval import appearance_rmse, mask_scores, outlier_iou, shape_error
from focus.face import FaceParameters, MorphableModel, Rendering


@dataclass
class Prediction:
    """What the networks say about a batch."""

    parameters: FaceParameters
    rendering: Rendering
    mask: Tensor
    """``[B, 1, S, S]`` in [0, 1]: the visible face, inside the rendered one."""


def share(mask: Tensor, face: Tensor) -> Tensor:
    """Mean of a mask inside the rendered faces of the batch; no gradient."""
    return ((mask * face).sum() / face.sum().clamp(min=1)).detach()


def true_scores(batch: FaceBatch, found: Prediction, model: MorphableModel) -> dict[str, Tensor]:
    """Means of the scores that the truth of a batch allows; for photos those by what a teacher says, if one does."""
    scores, face = {}, found.rendering.mask
    if batch.visible_mask is not None:
        scores["f1"] = mask_scores(found.mask, batch.visible_mask, face).f1.mean()
        scores["outlier_iou"] = outlier_iou(found.mask, batch.visible_mask, face).mean()
    if batch.lessons is not None:
        said, seen = face * batch.lessons.known, (batch.lessons.mask >= 0.5).to(face)
        f1, hidden = mask_scores(found.mask, seen, said).f1, outlier_iou(found.mask, seen, said)
        scores |= {"taught_f1": f1.mean(), "taught_outlier_iou": hidden.mean()}
        # Of what is seen and what is hidden: neither black masks nor those that call all face are good at both.
        scores["taught_mean_iou"] = (f1 / (2 - f1) + hidden).mean() / 2
    if batch.unoccluded is not None and batch.face_mask is not None:
        scores["appearance_rmse"] = appearance_rmse(found.rendering.image, batch.unoccluded, batch.face_mask).mean()
    if batch.neutral_vertices is not None:
        neutral = model.neutral_shape(found.parameters.identity)
        scores["shape_error_mm"] = shape_error(neutral, batch.neutral_vertices).mean()
    return scores
