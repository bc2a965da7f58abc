"""Faces and their landmarks, found in photos."""

from focus.data.detection.detectors import (
    DetectedFace,
    LandmarkDetector,
    make_detector,
    register_detector,
)
from focus.data.detection.search import search_faces

__all__ = ["DetectedFace", "LandmarkDetector", "make_detector", "register_detector", "search_faces"]
