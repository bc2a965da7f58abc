"""One photo and its landmarks in, a reconstruction out, without a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.contour import LandmarkLocator
from focus.fit.crop import OpenPhoto, open_photo
from focus.fit.distance import DISTANCES, fit_with_distance
from focus.fit.gauss_newton import SurfaceBasis
from focus.fit.landmarks import LandmarkFit, LandmarkObservation
from focus.fit.photometric import PhotometricFit
from focus.fit.region import crop_model, face_region
from focus.fit.settings import FitSettings
from focus.isolation import own_state
from focus.reconstruction import Reconstruction

_SIZE_OF_SIGMAS = 224
_SMALLEST_COARSE = 48
_STIFFNESS_OF_FIVE = 0.5
"""Factor on the standard deviation of expressions where 5 landmarks say next to nothing about them."""

_FARTHEST = 2.0
"""Sides of the crop between the middles of crop and photo, at most: what lies farther off is a photo that was cut."""
_LARGEST_MISFIT = 0.3
"""Root mean square distance of landmarks from the fitted face, relative to their distance from their mean. Faces have
less than 0.1."""


class PhotoFitter:
    """Fits photos with one face model, by analysis by synthesis.

    Pose from landmarks in closed form; pose, identity and expression from landmarks (Levenberg-Marquardt); then
    second-order steps on colours, landmarks and priors, first at half the size, alternating with linear least squares
    for the light and with an estimate of the pixels that are not the face. What counts as noise there shrinks as the
    fit improves.

    Args:
        model: any, also one that changes from photo to photo; a model without albedo gets a synthetic one
            (`MorphableModel.with_gaussian_process_albedo`).
        settings: see `FitSettings`.

    Attributes:
        model: as given, or with the synthetic albedo.

    Raises:
        TypeError: `model` is no `MorphableModel`.
        FocusError: it has no numbers (device meta).
    """

    def __init__(self, model: MorphableModel, settings: FitSettings | None = None) -> None:
        if not isinstance(model, MorphableModel):
            raise TypeError(
                "PhotoFitter: model: expected a MorphableModel (MorphableModel.procedural(), or MorphableModel.load of "
                f"a file), got {type(model).__name__}"
            )
        if model.mean_shape.is_meta:
            raise FocusError(
                "PhotoFitter: model: is on the device meta, where tensors have shapes but no numbers; expected a model "
                "with its numbers, on the CPU or a GPU. Load it there"
            )
        self.settings = settings or FitSettings()
        self._given = model
        with own_state(grad=True):
            self._prepare()

    def _prepare(self) -> None:
        model = self._given
        self._versions = model.versions()
        self.model = model if model.albedo_count else model.with_gaussian_process_albedo()
        self.region = face_region(self.model)
        self._cropped = crop_model(self.model, self.region)
        self._locator = LandmarkLocator(self._cropped)
        self._basis = SurfaceBasis(self._cropped)

    @property
    def steps(self) -> int:
        """How often `notify` is called for a photo."""
        return self.settings.coarse_steps + self.settings.fine_steps

    def __call__(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        *,
        name: str | None = None,
        notify: Callable[[], None] = lambda: None,
    ) -> Reconstruction:
        """Fits one photo; see `fit_photo`."""
        with own_state(grad=True):
            if self._given.has_changed(self._versions):
                self._prepare()
            return self._fit(image, landmarks, name, notify)

    def _fit(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        name: str | None,
        notify: Callable[[], None],
    ) -> Reconstruction:
        settings, size = self.settings, self.settings.image_size
        source = open_photo(image, landmarks, size, name)
        target = source.crop[None].to(self.model.mean_shape.device)
        unit = size / _SIZE_OF_SIGMAS
        observation = LandmarkObservation.from_points(
            torch.from_numpy(source.alignment.to_crop(source.landmarks)),
            unit * settings.landmark_sigma,
            unit * settings.jaw_sigma,
        )

        expression_sigma = settings.blend_shape_sigma if self.model.expression_prior == "unit_interval" else 1.0
        if len(source.landmarks) == 5:
            expression_sigma *= _STIFFNESS_OF_FIVE

        parameters, camera = self._fit_landmarks(observation, _camera_of(source), expression_sigma)
        first, last = settings.first_sigma, settings.last_sigma
        middle = (first * last) ** 0.5
        visible: Tensor | None = None
        coarse_size = max(size // 2, min(size, _SMALLEST_COARSE))
        if settings.coarse_steps:
            coarse = PhotometricFit(
                self._cropped,
                self._locator,
                F.interpolate(target, size=(coarse_size, coarse_size), mode="area"),
                observation.resized(size, coarse_size),
                expression_sigma,
                settings,
                notify,
                self._basis,
                camera,
            )
            found = coarse.descend(parameters, settings.coarse_steps, (first, middle))
            parameters = found.parameters
            visible = F.interpolate(found.visible, size=target.shape[2:], mode="bilinear")
        fine = PhotometricFit(
            self._cropped, self._locator, target, observation, expression_sigma, settings, notify, self._basis, camera
        )
        face = fine.descend(parameters, settings.fine_steps, (middle, last), visible)
        return Reconstruction(
            model=self.model,
            parameters=face.parameters,
            image=target[0],
            rendering=face.image[0],
            face=face.face[0],
            mask=face.visible[0],
            alignment=source.alignment,
            photo=source.photo,
            name=source.name,
            region=self.region,
            camera=camera,
        )

    def _fit_landmarks(
        self, observation: LandmarkObservation, camera: Camera, expression_sigma: float
    ) -> tuple[FaceParameters, Camera]:
        distances = DISTANCES if self.settings.estimate_distance else ()
        parameters, camera = fit_with_distance(
            self._cropped, self._locator, observation, expression_sigma, camera, distances
        )
        fit = LandmarkFit(self._cropped, self._locator, camera, observation, expression_sigma)
        misfit = fit.misfit(parameters)
        if misfit > _LARGEST_MISFIT:
            raise FocusError(
                f"landmarks: no face fits them: the best is off by {100 * misfit:.0f}% of their extent; expected "
                f"less than {100 * _LARGEST_MISFIT:.0f}%. Are they in the order of iBUG, and those of one face?"
            )
        return parameters, camera


def _camera_of(source: OpenPhoto) -> Camera:
    """Of the crop: the axis of the lens went through the middle of the photo, if that is not too far off."""
    height, width = source.photo.shape[:2]
    size = source.alignment.image_size
    x, y = source.alignment.to_crop(np.array([(width - 1) / 2, (height - 1) / 2])) - (size - 1) / 2
    shrink = min(1.0, _FARTHEST * size / max(float(np.hypot(x, y)), 1e-9))
    return Camera(size, offset=(float(x) * shrink, float(y) * shrink))


def fit_photo(
    image: NDArray[np.uint8] | str | Path,
    landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
    model: MorphableModel,
    settings: FitSettings | None = None,
    *,
    name: str | None = None,
) -> Reconstruction:
    """Reconstructs the face in a photo from the photo and its landmarks alone. For many photos, use one `PhotoFitter`.

    Args:
        image: a file, or uint8 ``[H, W, 3]`` sRGB.
        landmarks: ``[68, 2]`` iBUG points, or ``[5, 2]``: eye centres (the image's left first), nose tip, mouth
            corners; pixels of the photo, x right, y down, pixel centres at integers.
        model: the face model.
        settings: see `FitSettings`.
        name: of the photo, for its files; None: the name of the file, or "photo".

    Returns:
        The reconstruction; its `save` writes the files.

    Raises:
        FocusError: an unusable image, or landmarks that are not finite, not 68 or 5, not on the photo, mirrored, or
            not those of a face.
    """
    return PhotoFitter(model, settings)(image, landmarks, name=name)
