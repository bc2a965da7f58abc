"""Faces to learn from: aligned photos with landmarks, and synthetic faces with ground truth."""

from focus.data.align import Alignment, estimate_alignment
from focus.data.batches import FaceBatch
from focus.data.changes import AugmentationSettings
from focus.data.images import image_size, read_image, write_image
from focus.data.landmarks import LandmarkTable, Skip, expand_to_68, five_from_68, read_landmarks
from focus.data.patches import PatchSettings, patched
from focus.data.photos import PhotoFolder, PhotoItem
from focus.data.sampling import PoseSettings
from focus.data.synthetic import SyntheticFaces, SyntheticPool, SyntheticSettings

__all__ = [
    "Alignment",
    "AugmentationSettings",
    "FaceBatch",
    "LandmarkTable",
    "PatchSettings",
    "PhotoFolder",
    "PhotoItem",
    "PoseSettings",
    "Skip",
    "SyntheticFaces",
    "SyntheticPool",
    "SyntheticSettings",
    "estimate_alignment",
    "expand_to_68",
    "five_from_68",
    "image_size",
    "patched",
    "read_image",
    "read_landmarks",
    "write_image",
]
