"""What comes out for one photo, whichever way it was found, and its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import ops
from focus._version import __version__
from focus.data.align import Alignment
from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel
from focus.face.contour import LandmarkLocator
from focus.face.renderer import draw, shade
from focus.record import JSON_FORMAT, MASK, OVERLAY, RECORD, RESULT_SUFFIXES, digests
from focus.report.files import write_together
from focus.report.meshes import encode_meshes
from focus.report.overlay import draw_overlay
from focus.report.panels import encode_png
from focus.report.results import not_finite

__all__ = ["JSON_FORMAT", "RESULT_SUFFIXES", "Reconstruction"]


@dataclass
class Reconstruction:
    """A face and what hides it.

    Attributes:
        model: the face model of the coefficients.
        parameters: B = 1.
        image: ``[3, S, S]`` RGB in [0, 1], the crop that was looked at.
        rendering: ``[3, S, S]``, the reconstruction there; 0 outside of the face, not clamped.
        face: ``[1, S, S]``, 1 where the reconstruction is drawn.
        mask: ``[1, S, S]`` in [0, 1], 1 where the photo shows this face; 0 where something hides it, and outside.
        alignment: between the crop and the photo.
        photo: uint8 ``[H, W, 3]``.
        name: of the photo.
        region: ``[V]`` bool, the vertices that were drawn; None: all of them.
        camera: of the crop; None: that of FOCUS, with which networks see.
        fitted_with: the names of the other photos of this person, with which identity and albedo are shared.
        misfit: ``[V, 3]`` mm, taken off the shape (`focus.eval.misfit`); the drawn overlay has it, `rendering` has not.
    """

    model: MorphableModel
    parameters: FaceParameters
    image: Tensor
    rendering: Tensor
    face: Tensor
    mask: Tensor
    alignment: Alignment
    photo: NDArray[np.uint8] = field(repr=False)
    name: str = "photo"
    region: Tensor | None = None
    misfit: Tensor | None = None
    camera: Camera | None = None
    fitted_with: tuple[str, ...] = ()

    def camera_at(self, image_size: int) -> Camera:
        """The camera of the crop drawn at a size in pixels."""
        return Camera(image_size) if self.camera is None else self.camera.resized(image_size)

    @property
    def vertices(self) -> Tensor:
        """``[V, 3]`` mm, model space, with expression."""
        shape = self.model.shape(self.parameters.identity, self.parameters.expression)[0]
        return shape if self.misfit is None else shape - self.misfit

    @property
    def neutral_vertices(self) -> Tensor:
        """``[V, 3]`` mm, model space, without expression."""
        shape = self.model.neutral_shape(self.parameters.identity)[0]
        return shape if self.misfit is None else shape - self.misfit

    @property
    def colors(self) -> Tensor:
        """``[V, 3]`` RGB in [0, 1]: the albedo of the model, free of light and of what hides the face in the photo."""
        return self.model.albedo(self.parameters.albedo)[0].clamp(0, 1)

    @property
    def landmarks_68(self) -> NDArray[np.float64]:
        """``[68, 2]`` pixels of the photo: the iBUG points, those of the jaw on the outline (`LandmarkLocator`)."""
        camera = self.camera_at(self.alignment.image_size)
        parameters = self.parameters
        points = LandmarkLocator(self.model)(
            self.vertices[None], parameters.rotation, translation=parameters.translation
        )
        screen = camera.project(camera.transform(points, parameters.rotation, parameters.translation))
        return self.alignment.to_photo(screen[0, :, :2].double().cpu().numpy())

    @property
    def pose(self) -> dict[str, list[float]]:
        """``rotation_degrees``: pitch, yaw and roll, (a, b, c) of R = diag(1, -1, -1) Rx(a) Ry(b) Rz(c), and
        ``translation_mm``: from the camera to the model's origin, camera axes (x right, y down, z away).
        """
        rotation, translation = self.parameters.rotation, self.parameters.translation
        origin = Camera.transform(translation.new_zeros(1, 1, 3), rotation, translation)
        return {
            "rotation_degrees": torch.rad2deg(rotation[0].double()).tolist(),
            "translation_mm": origin[0, 0].double().tolist(),
        }

    @property
    def occluded_fraction(self) -> float:
        """The part of the drawn face that something hides, 0 to 1; 1 for a face without a pixel."""
        area = float(self.face.sum())
        return 1 - float((self.face * self.mask).sum()) / area if area > 0 else 1.0

    def render(
        self, image_size: int, *, colors: Tensor | None = None, lighting: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draws the face at any resolution of the crop.

        Args:
            image_size: side, pixels.
            colors: ``[V, 3]``, in place of the albedo.
            lighting: ``[3, 9]``, in place of the light of the photo.

        Returns:
            Image ``[3, size, size]``, not clamped, and mask ``[1, size, size]``.
        """
        parameters = self.parameters
        camera = self.camera_at(image_size)
        placed = camera.transform(self.vertices[None], parameters.rotation, parameters.translation)
        albedo = (self.colors if colors is None else colors)[None]
        light = parameters.lighting if lighting is None else lighting[None]
        _, shaded = shade(placed, albedo, light, self.model.topology)
        image, mask, _ = draw(camera.project(placed), shaded, self._drawn_topology(), (image_size, image_size))
        return image[0], mask[0]

    def _drawn_topology(self) -> ops.Topology:
        if self.region is None:
            return self.model.topology
        faces = self.model.faces
        return ops.Topology(faces[self.region[faces.long()].all(dim=1)], self.model.vertex_count)

    def _camera_in_photo(self) -> dict[str, Any]:
        """Focal length and principal point in pixels of the photo."""
        crop = self.alignment
        camera = self.camera_at(crop.image_size)
        principal = crop.to_photo(np.array(camera.offset) + camera.principal)
        return {"focal_pixels": camera.focal / crop.scale, "principal_pixels": principal.tolist()}

    def mask_in_photo(self) -> NDArray[np.float32]:
        """`mask` in the pixels of the photo: float32 ``[H, W]`` in [0, 1]."""
        height, width = self.photo.shape[:2]
        return self.alignment.to_photo_image(self.mask[0].detach().cpu().numpy(), (height, width)).clip(0, 1)

    def to_dict(self) -> dict[str, Any]:
        """All numbers of the result, as written to the JSON file."""
        parameters = self.parameters
        return {
            "format": JSON_FORMAT,
            "version": __version__,
            "photo": self.name,
            "fitted_with": list(self.fitted_with),
            "photo_size": {"height": self.photo.shape[0], "width": self.photo.shape[1]},
            "model": self.model.name,
            "model_fingerprint": self.model.fingerprint(),
            "landmarks_68": self.landmarks_68.tolist(),
            "pose": self.pose,
            "camera": self._camera_in_photo(),
            "lighting": parameters.lighting[0].double().tolist(),
            "coefficients": {
                name: getattr(parameters, name)[0].double().tolist() for name in ("identity", "expression", "albedo")
            },
            "occluded_fraction": self.occluded_fraction,
            "alignment": self.alignment.as_dict(),
        }

    def save(
        self, folder: str | Path, stem: str | None = None, *, made_from: Mapping[str, Any] | None = None
    ) -> list[Path]:
        """Writes ``<stem>.ply``, ``.obj``, ``.glb``, ``_mask.png``, ``_overlay.png`` and ``.json``: all or none.

        The meshes are in model space (y up, the face looks along +z), with the albedo as colours; see `encode_meshes`.
        The mask has the size of the photo, 255 where the face is seen; the overlay is that of `draw_overlay`. The JSON
        file is there only while the others are those that belong to it, also after a kill: it holds their digests, and
        `focus.record.check_result` compares.

        Args:
            folder: made if need be.
            stem: of the files; None: that of `name`.
            made_from: what says whether the same would come out once more, kept in the JSON file as it is.

        Returns:
            The files.

        Raises:
            FocusError: no usable stem, a number that is not finite, or the file system refused.
        """
        stem = Path(self.name).stem if stem is None else stem
        if not stem or Path(stem).name != stem:
            raise FocusError(f"save: stem: expected the start of a file name, got {stem!r}")
        content = self.to_dict()
        odd = next(not_finite(content), None)
        if odd is not None or not bool(torch.isfinite(self.vertices).all()):
            raise FocusError(f"{odd or 'vertices'}: not finite: the face did not come out; try other settings")
        contents = encode_meshes(
            self.vertices.detach().cpu().numpy(), self.model.faces.cpu().numpy(), self.colors.detach().cpu().numpy()
        )
        contents[MASK] = encode_png(np.rint(self.mask_in_photo() * 255).astype(np.uint8))
        contents[OVERLAY] = encode_png(draw_overlay(self))
        content |= {"files": digests(contents), "made_from": None if made_from is None else dict(made_from)}
        contents[RECORD] = json.dumps(content, indent=1, allow_nan=False).encode()
        return write_together(Path(folder), {f"{stem}{suffix}": contents[suffix] for suffix in RESULT_SUFFIXES})
