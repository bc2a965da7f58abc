"""Faces from photos without a trained network: analysis by synthesis."""

from focus.fit.folder import run
from focus.fit.person import run_person
from focus.fit.photo import PhotoFitter, fit_photo, fit_photos
from focus.fit.results import FitReport, Progress, Written
from focus.fit.settings import FitSettings

__all__ = [
    "FitReport",
    "FitSettings",
    "PhotoFitter",
    "Progress",
    "Written",
    "fit_photo",
    "fit_photos",
    "run",
    "run_person",
]
