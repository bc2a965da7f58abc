"""Faces to learn from: aligned photos with landmarks, and synthetic faces with ground truth."""

from focus.data.align import Alignment, estimate_alignment
from focus.data.batches import FaceBatch
from focus.data.images import image_size, read_image, write_image
from focus.data.landmarks import LandmarkTable, Skip, expand_to_68, five_from_68, read_landmarks
from focus.data.photos import AugmentationSettings, PhotoFolder, PhotoItem
from focus.data.pool import Prefetcher, SyntheticPool
from focus.data.sampling import PoseSettings
from focus.data.synthetic import SyntheticFaces, SyntheticSettings

__all__ = [
    "Alignment",
    "AugmentationSettings",
    "FaceBatch",
    "LandmarkTable",
    "PhotoFolder",
    "PhotoItem",
    "PoseSettings",
    "Prefetcher",
    "Skip",
    "SyntheticFaces",
    "SyntheticPool",
    "SyntheticSettings",
    "estimate_alignment",
    "expand_to_68",
    "five_from_68",
    "image_size",
    "read_image",
    "read_landmarks",
    "write_image",
]
