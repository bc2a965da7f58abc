"""Faces from photos without a trained network: analysis by synthesis."""

from focus.fit.folder import FitReport, Progress, Written, run
from focus.fit.photo import PhotoFitter, fit_photo, fit_photos
from focus.fit.settings import FitSettings

__all__ = ["FitReport", "FitSettings", "PhotoFitter", "Progress", "Written", "fit_photo", "fit_photos", "run"]
