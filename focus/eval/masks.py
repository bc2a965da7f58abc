"""How well a mask says where the face is seen: scores by the rule of the authors' code, and outlier IoU.

Masks are ``[B, 1, H, W]``: `predicted` in [0, 1] (1 = the face is seen here), `visible` in {0, 1} the truth,
`rendered` in {0, 1} the face as the method renders it. Only pixels of the rendered face count: elsewhere the method
says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLD = 0.5
"""From here on a soft mask says "seen"."""


class MaskScores(NamedTuple):
    """One number in [0, 1] for each image, ``[B]``; positive means "the face is seen here"."""

    accuracy: Tensor
    """(TP + TN) / (TP + TN + FP + FN)."""
    precision: Tensor
    """TP / (TP + FP), the paper's PPV."""
    recall: Tensor
    """TP / (TP + FN), the paper's TPR."""
    f1: Tensor
    """2 TP / (2 TP + FP + FN)."""


def mask_scores(predicted: Tensor, visible: Tensor, rendered: Tensor, *, threshold: float | None = None) -> MaskScores:
    """Scores of masks, image by image (authors' code, util/evaluation.py).

    TP = sum_x predicted visible rendered, and so on: the soft mask counts as it is. Each of the four areas is at
    least one pixel, so that no score is 0 / 0; a perfect mask of a face of n pixels therefore has precision
    n / (n + 1).

    Args:
        predicted: ``[B, 1, H, W]`` in [0, 1].
        visible: ``[B, 1, H, W]`` in {0, 1}.
        rendered: ``[B, 1, H, W]`` in {0, 1}.
        threshold: None scores the soft mask, as the authors do; a number first makes it 1 where it is at least that,
            else 0.
    """
    _check("mask_scores", predicted, visible, rendered)
    if threshold is not None:
        predicted = (predicted >= threshold).to(rendered.dtype)

    def area(mask: Tensor) -> Tensor:
        return (mask * rendered).sum(dim=(1, 2, 3), dtype=torch.float64).clamp(min=1)

    true_positive, true_negative = area(predicted * visible), area((1 - predicted) * (1 - visible))
    false_positive, false_negative = area(predicted * (1 - visible)), area((1 - predicted) * visible)
    wrong = false_positive + false_negative
    right = true_positive + true_negative
    return MaskScores(
        accuracy=right / (right + wrong),
        precision=true_positive / (true_positive + false_positive),
        recall=true_positive / (true_positive + false_negative),
        f1=2 * true_positive / (2 * true_positive + wrong),
    )


def outlier_iou(predicted: Tensor, visible: Tensor, rendered: Tensor, *, threshold: float = THRESHOLD) -> Tensor:
    """Intersection over union of the predicted and the true outliers, image by image.

    Outliers are the pixels of the rendered face where the face is not seen: occluders, and background that the
    rendering covers by mistake. A mask that calls everything face finds none of them and scores 0, however small they
    are; F1 hardly notices.

    Args:
        predicted, visible, rendered: as for `mask_scores`.
        threshold: below it the predicted mask says "outlier".

    Returns:
        ``[B]`` in [0, 1]. Where there is no outlier and none is predicted (an empty union) the answer is right: 1.
        Where no pixel is rendered there is no answer: 0.
    """
    _check("outlier_iou", predicted, visible, rendered)
    inside = rendered > 0.5
    found, true = inside & (predicted < threshold), inside & (visible < 0.5)
    intersection = (found & true).sum(dim=(1, 2, 3), dtype=torch.float64)
    union = (found | true).sum(dim=(1, 2, 3), dtype=torch.float64)
    empty = inside.any(dim=(1, 2, 3)).double()  # what an empty union is worth
    return torch.where(union > 0, intersection / union.clamp(min=1), empty)


def _check(name: str, predicted: Tensor, visible: Tensor, rendered: Tensor) -> None:
    shape = tuple(rendered.shape)
    if len(shape) != 4 or shape[1] != 1 or tuple(predicted.shape) != shape or tuple(visible.shape) != shape:
        raise ValueError(
            f"{name}: predicted, visible, rendered: expected the same shape [B, 1, H, W], "
            f"got {list(predicted.shape)}, {list(visible.shape)} and {list(rendered.shape)}"
        )
