"""Faces and their landmarks, found in photos."""

from focus.data.detection.detectors import (
    DetectedFace,
    LandmarkDetector,
    make_detector,
    register_detector,
)

__all__ = ["DetectedFace", "LandmarkDetector", "make_detector", "register_detector"]
