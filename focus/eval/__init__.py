"""How good is it: mask, shape and appearance scores, paired statistics, and the benchmark of methods on synthetic
faces.
"""

from focus.eval.appearance import appearance_rmse
from focus.eval.benchmark import Evaluation, Method, evaluate
from focus.eval.masks import MaskScores, mask_scores, outlier_iou
from focus.eval.shape import Similarity, fit_similarity, shape_error
from focus.eval.statistics import Interval, paired_bootstrap

__all__ = [
    "Evaluation",
    "Interval",
    "MaskScores",
    "Method",
    "Similarity",
    "appearance_rmse",
    "evaluate",
    "fit_similarity",
    "mask_scores",
    "outlier_iou",
    "paired_bootstrap",
    "shape_error",
]
