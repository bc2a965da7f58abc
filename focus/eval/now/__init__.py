"""The NoW challenge (Sanyal et al., CVPR 2019): distance of scans to predicted meshes. See docs/now.md."""

from focus.eval.now.alignment import Placement, Surface, align_landmarks, face_region, refine
from focus.eval.now.boxes import points_in_box, read_box
from focus.eval.now.curves import PUBLISHED, cumulative, draw_curves
from focus.eval.now.dataset import NowDataset, NowImage, read_image_list, seven_landmarks
from focus.eval.now.evaluate import NowEvaluation, NowSettings, evaluate_now, scan_errors

__all__ = [
    "PUBLISHED",
    "NowDataset",
    "NowEvaluation",
    "NowImage",
    "NowSettings",
    "Placement",
    "Surface",
    "align_landmarks",
    "cumulative",
    "draw_curves",
    "evaluate_now",
    "face_region",
    "points_in_box",
    "read_box",
    "read_image_list",
    "refine",
    "scan_errors",
    "seven_landmarks",
]
