"""One photo and its landmarks in, a reconstruction out, without a trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel, Renderer
from focus.face.contour import LandmarkLocator
from focus.fit.appearance import PixelFace
from focus.fit.crop import OpenPhoto, open_photo
from focus.fit.distance import DISTANCES, fit_with_distance
from focus.fit.gauss_newton import SurfaceBasis
from focus.fit.landmarks import LandmarkFit, LandmarkObservation
from focus.fit.photometric import FittedFace, PhotometricFit
from focus.fit.pieces import pieces_of_crop, resized_pieces
from focus.fit.region import crop_model, face_region
from focus.fit.settings import FitSettings
from focus.fit.starts import find_start
from focus.fit.together import descend_together
from focus.fit.witnesses import vertex_fields
from focus.isolation import own_state
from focus.reconstruction import Reconstruction

_SIZE_OF_SIGMAS = 224
_SMALLEST_COARSE = 48
_SIZE_OF_STARTS = 56
_STIFFNESS_OF_FIVE = 0.5
"""Factor on the standard deviation of expressions where 5 landmarks say next to nothing about them."""

_FARTHEST = 2.0
"""Sides of the crop between the middles of crop and photo, at most: what lies farther off is a photo that was cut."""
_LARGEST_MISFIT = 0.3
"""Root mean square distance of landmarks from the fitted face, relative to their distance from their mean. Faces have
less than 0.1."""


Photo = tuple[NDArray[np.uint8] | str | Path, NDArray[np.floating] | Sequence[Sequence[float]]]
"""An image, or its file, and the landmarks in it."""


@dataclass(frozen=True)
class PhotoStart:
    """A photo, and the face that its landmarks say."""

    source: OpenPhoto
    target: Tensor
    pieces: Tensor
    observation: LandmarkObservation
    expression_sigma: float
    parameters: FaceParameters
    camera: Camera
    heard: Tensor | None = None
    """``[1, 1, S, S]``, log-odds of the mask that a network says."""


class Witness(Protocol):
    """What is heard about the mask of a photo beside the rule, such as a trained network."""

    def __call__(self, crop: Tensor) -> Tensor:
        """From a crop ``[1, 3, S, S]`` RGB in [0, 1] to the log-odds that the face is seen, ``[1, 1, S, S]``."""

    def digest(self) -> str:
        """Names it: two that say the same have the same."""


class PhotoFitter:
    """Fits photos with one face model, by analysis by synthesis.

    Pose from landmarks in closed form; pose, identity and expression from landmarks (Levenberg-Marquardt); a first mask
    by several starts on a small image; then second-order steps on colours, landmarks and priors, first at half the
    size, alternating with linear least squares for the light and with an estimate of the pixels that are not the face.

    Args:
        model: any, also one that changes from photo to photo; a model without albedo gets a synthetic one
            (`MorphableModel.with_gaussian_process_albedo`).
        settings: see `FitSettings`.
        witness: what else is heard about the mask. Its mask is then the one to start from.

    Attributes:
        model: as given, or with the synthetic albedo.

    Raises:
        TypeError: `model` is no `MorphableModel`.
        FocusError: it has no numbers (device meta).
    """

    def __init__(
        self,
        model: MorphableModel,
        settings: FitSettings | None = None,
        *,
        witness: Witness | None = None,
    ) -> None:
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
        self.settings, self.witness = settings or FitSettings(), witness
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
        self._fields = vertex_fields(self._cropped)

    @property
    def made_by(self) -> dict[str, Any]:
        """What, beside a photo and its landmarks, decides the result; JSON values."""
        made_by = {"settings": asdict(self.settings), "model": self.model.fingerprint()}
        return made_by if self.witness is None else {**made_by, "witness": self.witness.digest()}

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

    def start(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        *,
        name: str | None = None,
    ) -> PhotoStart:
        """Reads a photo and fits its landmarks: whatever `fit_photo` refuses is refused here."""
        with own_state(grad=True):
            if self._given.has_changed(self._versions):
                self._prepare()
            return self._start(image, landmarks, name)

    def together(
        self, photos: Sequence[Photo], *, names: Sequence[str] | None = None, notify: Callable[[], None] = lambda: None
    ) -> list[Reconstruction]:
        """Fits photos of one person; see `fit_photos`. `notify` is called `steps` times for each photo."""
        if not photos:
            raise FocusError("fit_photos: expected at least one photo, got none")
        given = [None] * len(photos) if names is None else list(names)
        if len(given) != len(photos):
            raise FocusError(f"fit_photos: names: expected {len(photos)}, got {len(given)}")
        starts = [self.start(image, points, name=name) for (image, points), name in zip(photos, given, strict=True)]
        return self.finish_together(starts, notify)

    def finish_together(
        self, starts: Sequence[PhotoStart], notify: Callable[[], None] = lambda: None
    ) -> list[Reconstruction]:
        """As `together`, of photos that were opened by `start`, at least one."""
        with own_state(grad=True):
            identity = torch.cat([start.parameters.identity for start in starts]).mean(dim=0, keepdim=True)
            starts = [replace(start, parameters=replace(start.parameters, identity=identity)) for start in starts]
            found = self._descend(starts, notify)
        names = [one.name for one in found]
        return [replace(one, fitted_with=(*names[:i], *names[i + 1 :])) for i, one in enumerate(found)]

    def _fit(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        name: str | None,
        notify: Callable[[], None],
    ) -> Reconstruction:
        return self._descend([self._start(image, landmarks, name)], notify)[0]

    def _descend(self, starts: Sequence[PhotoStart], notify: Callable[[], None]) -> list[Reconstruction]:
        """From pose and shape by landmarks to the results, all of one person."""
        settings, size = self.settings, self.settings.image_size
        visible = [self._first_mask(start) for start in starts]
        parameters = [start.parameters for start in starts]
        coarse_size = max(size // 2, min(size, _SMALLEST_COARSE))
        if settings.coarse_steps:
            fits = [self._photometric(start, coarse_size, notify) for start in starts]
            found = _descend(fits, parameters, settings.coarse_steps, visible)
            parameters, visible = [face.parameters for face in found], [face.visible for face in found]
        fits = [self._photometric(start, size, notify) for start in starts]
        faces = _descend(fits, parameters, settings.fine_steps, visible)
        return [self._result(start, face) for start, face in zip(starts, faces, strict=True)]

    def _result(self, start: PhotoStart, face: FittedFace) -> Reconstruction:
        return Reconstruction(
            model=self.model,
            parameters=face.parameters,
            image=start.target[0],
            rendering=face.image[0],
            face=face.face[0],
            mask=face.visible[0],
            alignment=start.source.alignment,
            photo=start.source.photo,
            name=start.source.name,
            region=self.region,
            camera=start.camera,
        )

    def _first_mask(self, start: PhotoStart) -> Tensor:
        """From light and albedo alone, on a small image: ``[1, 1, s, s]``. That of the witness, where there is one."""
        size = min(start.target.shape[-1], _SIZE_OF_STARTS)
        small = _resized(start.target, size)
        with torch.no_grad():
            rendering = Renderer(self._cropped, size, camera=start.camera.resized(size))(start.parameters)
            if not bool((rendering.mask > 0).any()):
                raise FocusError(
                    "landmarks: the face that fits them lies off the crop: no pixel of it can be compared with the "
                    "photo; are they those of this photo, and is the model whole?"
                )
            if start.heard is not None:
                said: Tensor = torch.sigmoid(_resized(start.heard, size)) * rendering.mask
                return said
            pieces = resized_pieces(start.pieces, size)
            face = PixelFace.draw(small, rendering, self._cropped, self._fields, pieces)
            return find_start(face, small, rendering.mask, rendering.landmarks[0])

    def _photometric(self, start: PhotoStart, size: int, notify: Callable[[], None]) -> PhotometricFit:
        """The fit at a size of the crop."""
        full = self.settings.image_size
        target = start.target if size == full else _resized(start.target, size)
        return PhotometricFit(
            self._cropped,
            self._locator,
            target,
            start.observation.resized(full, size),
            start.expression_sigma,
            self.settings,
            notify,
            self._basis,
            start.camera,
            resized_pieces(start.pieces, size),
            None if start.heard is None else _resized(start.heard, size),
        )

    def _start(
        self,
        image: NDArray[np.uint8] | str | Path,
        landmarks: NDArray[np.floating] | Sequence[Sequence[float]],
        name: str | None,
    ) -> PhotoStart:
        """Reads a photo, and fits its landmarks."""
        settings, size = self.settings, self.settings.image_size
        source = open_photo(image, landmarks, size, name)
        unit = size / _SIZE_OF_SIGMAS
        observation = LandmarkObservation.from_points(
            torch.from_numpy(source.alignment.to_crop(source.landmarks)),
            unit * settings.landmark_sigma,
            unit * settings.jaw_sigma,
        )
        expression_sigma = settings.blend_shape_sigma if self.model.expression_prior == "unit_interval" else 1.0
        if len(source.landmarks) == 5:
            expression_sigma *= _STIFFNESS_OF_FIVE
        camera = Camera(size) if settings.centered else _camera_of(source)
        parameters, camera = self._fit_landmarks(observation, camera, expression_sigma)
        target = source.crop[None].to(self.model.mean_shape.device)
        heard = None if self.witness is None else self.witness(target)
        return PhotoStart(
            source, target, pieces_of_crop(target), observation, expression_sigma, parameters, camera, heard
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


def _descend(
    fits: Sequence[PhotometricFit],
    starts: Sequence[FaceParameters],
    steps: int,
    visible: Sequence[Tensor],
) -> list[FittedFace]:
    masks = [_resized(mask, fit.target.shape[-1]) for fit, mask in zip(fits, visible, strict=True)]
    if len(fits) == 1:
        return [fits[0].descend(starts[0], steps, masks[0])]
    return descend_together(fits, starts, steps, masks)


def _resized(images: Tensor, size: int) -> Tensor:
    """Images ``[B, C, s, s]`` at another size."""
    return F.interpolate(images, size=(size, size), mode="area" if size < images.shape[-1] else "bilinear")


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


def fit_photos(
    photos: Sequence[Photo],
    model: MorphableModel,
    settings: FitSettings | None = None,
    *,
    names: Sequence[str] | None = None,
) -> list[Reconstruction]:
    """Reconstructs one person from several photos: identity and albedo are shared, and found from all of them at once.

    Args:
        photos: image and landmarks of each, as for `fit_photo`.
        model: the face model.
        settings: see `FitSettings`.
        names: of the photos; None: the names of the files, or "photo".

    Returns:
        A reconstruction for each photo, with its pose, expression, light and mask.

    Raises:
        FocusError: no photo, or one that `fit_photo` refuses.
    """
    return PhotoFitter(model, settings).together(photos, names=names)
