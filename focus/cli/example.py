"""`focus example`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray

from focus.bounds import SEED, Within
from focus.cli.command import Command, Outcome, bars, parse_as
from focus.data import write_image
from focus.data.example import LARGEST_SIZE, LEAST_SIZE, PHOTOS, ExamplePicture, draw_clip, draw_photos
from focus.errors import FocusError
from focus.eval.now import NowImage
from focus.eval.now.dataset import seven_landmarks
from focus.face import MorphableModel
from focus.report.files import check_folder, write_together
from focus.report.meshes import encode_meshes
from focus.report.now import write_prediction
from focus.report.results import write_json, write_text
from focus.train import shipped_checkpoint

_ABOUT = "example.json"
_IDENTITY, _EXPRESSION, _ALBEDO = 20, 10, 10
"""Components of the face model file."""
_SUBJECTS = {"plain": "person-1", "glasses": "person-2"}
"""Photos whose faces stand in for scans, and what they are called there."""
_CHALLENGE = "selfie"
_SECONDS_PER_FRAME = 0.08


@dataclass(kw_only=True)
class Example(Command):
    """Draw example photos, their landmarks and true masks, a clip and a face model: something to try things on."""

    out: Path
    """Folder of the example; new, empty, or of an earlier example."""
    seed: Annotated[int, SEED] = 2
    """Other seeds give other people, light and places."""
    size: Annotated[int, Within(LEAST_SIZE, LARGEST_SIZE)] = 512
    """Side of the photos, pixels."""
    frames: Annotated[int, Within(1, 1000)] = 24
    """Of the clip."""

    def run(self) -> Outcome:
        """Draws and writes everything; the same options give the same bytes on one machine."""
        check_folder(self.out)
        if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / _ABOUT).is_file():
            raise FocusError(f"{self.out}: holds other files than an example's; choose a new or an empty folder")
        model = MorphableModel.procedural()
        with bars() as update:
            photos = []
            for picture in draw_photos(model, self.size, self.seed):
                photos.append(picture)
                update("photos", len(photos), len(PHOTOS), picture.name)
            clip = []
            for picture in draw_clip(model, max(self.size // 2, 64), self.seed, self.frames):
                clip.append(picture)
                update("clip", len(clip), self.frames, picture.name)
        self.out.mkdir(parents=True, exist_ok=True)
        written = [write_json(self.out / _ABOUT, self._about(photos))]
        written += _write_photos(self.out, photos)
        written += _write_clip(self.out, clip)
        small = MorphableModel.procedural("small")
        written += _write_models(self.out, small)
        written += _write_now(self.out / "now", photos, small)
        return Outcome(written=written)

    def _about(self, photos: Sequence[ExamplePicture]) -> dict[str, object]:
        return {
            "note": "drawn by focus example; no real person is in these pictures",
            "seed": self.seed,
            "photos": {
                f"{photo.name}.jpg": {
                    "occluded_fraction": round(1 - float(photo.visible_mask.sum() / photo.face_mask.sum()), 4),
                    "yaw_degrees": round(float(photo.parameters.rotation[0, 1].rad2deg()), 2),
                    "identity": [round(value, 4) for value in photo.parameters.identity[0].tolist()],
                }
                for photo in photos
            },
        }


def _write_photos(out: Path, photos: Sequence[ExamplePicture]) -> list[Path]:
    """Photos with what a detector says of them and what is true."""
    for name in ("photos", "true_masks", "face_masks"):
        (out / name).mkdir(exist_ok=True)
    written = []
    for photo in photos:
        written.append(write_image(out / "photos" / f"{photo.name}.jpg", photo.image))
        written.append(write_image(out / "true_masks" / f"{photo.name}.png", photo.visible_mask.astype(np.float32)))
        written.append(write_image(out / "face_masks" / f"{photo.name}.png", photo.face_mask.astype(np.float32)))
    written.append(write_text(out / "landmarks.csv", _table(photos)))
    occluded = "".join(f"{photo.name}\n" for photo in photos if photo.occluded)
    written.append(write_text(out / "occluded.txt", occluded))
    return written


def _write_clip(out: Path, frames: Sequence[ExamplePicture]) -> list[Path]:
    """The frames as photos with landmarks, and all of them as one animation to look at."""
    (out / "clip").mkdir(exist_ok=True)
    written = [write_image(out / "clip" / f"{frame.name}.jpg", frame.image) for frame in frames]
    written.append(write_text(out / "clip" / "landmarks.csv", _table(frames)))
    images = np.stack([frame.image for frame in frames])
    animation = iio.imwrite(
        "<bytes>", images, extension=".gif", plugin="pillow", duration=1000 * _SECONDS_PER_FRAME, loop=0
    )
    assert isinstance(animation, bytes)
    return written + write_together(out, {"clip.gif": animation})


def _write_models(out: Path, small: MorphableModel) -> list[Path]:
    """A face model of our own format, one of plain arrays that lacks its landmarks, these, and a trained network."""
    model = small.truncated(_IDENTITY, _EXPRESSION, _ALBEDO)
    model.save(out / "face.focusmodel")
    arrays = {
        "mean": model.mean_shape.numpy(),
        "identity": model.identity_basis.numpy(),
        "expression": model.expression_basis.numpy(),
        "mean_albedo": model.mean_albedo.numpy(),
        "albedo": model.albedo_basis.numpy(),
        "faces": model.faces.numpy(),
    }
    plain = io.BytesIO()
    np.savez_compressed(plain, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the first for allow_pickle
    files = {
        "face.npz": plain.getvalue(),
        "landmarks68.txt": "".join(f"{index}\n" for index in model.landmarks68.tolist()).encode(),
    }
    network = shipped_checkpoint()
    if network is not None:
        files["network.safetensors"] = network.read_bytes()
    return [out / "face.focusmodel", *write_together(out, files)]


def _write_now(folder: Path, photos: Sequence[ExamplePicture], small: MorphableModel) -> list[Path]:
    """The layout of the NoW challenge (docs/now.md): true faces in place of scans, and mean faces as predictions."""
    written, lines = [], []
    faces, seven = small.faces.numpy(), seven_landmarks(small)
    colors = small.mean_albedo
    release = folder / "final_release_version"
    for photo in photos:
        subject = _SUBJECTS.get(photo.name)
        if subject is None:
            continue
        image = NowImage(subject, _CHALLENGE, "1")
        lines.append(f"{subject}/{_CHALLENGE}/1.jpg\n")
        shape = small.neutral_shape(photo.parameters.identity)[0].numpy()
        scan = encode_meshes(shape, faces, colors.numpy())[".obj"]
        points = "".join(f'<point x="{x:.4f}" y="{y:.4f}" z="{z:.4f}"/>' for x, y, z in shape[seven].tolist())
        written += write_together(folder / "scans" / subject, {"scan.obj": scan})
        picked = f"<PickedPoints>{points}</PickedPoints>\n".encode()
        written += write_together(folder / "scans_lmks_onlypp" / subject, {"scan.pp": picked})
        place = release / "iphone_pictures" / subject / _CHALLENGE
        place.mkdir(parents=True, exist_ok=True)
        written.append(write_image(place / "1.jpg", photo.image))
        box = _saved(np.concatenate((photo.landmarks.min(axis=0), photo.landmarks.max(axis=0))))
        written += write_together(release / "detected_face" / subject / _CHALLENGE, {"1.npy": box})
        written += write_prediction(folder / "mean_faces", image, small.mean_shape, colors, small)
    written.append(write_text(folder / "imagepathsvalidation.txt", "".join(lines)))
    return written


def _table(pictures: Iterable[ExamplePicture]) -> str:
    """Rows of a landmark file."""
    return "".join(
        ",".join([f"{picture.name}.jpg", *(f"{value:.2f}" for value in picture.landmarks.reshape(-1).tolist())]) + "\n"
        for picture in pictures
    )


def _saved(array: NDArray[np.floating]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def parse(arguments: Sequence[str]) -> Example:
    """Options of `focus example`."""
    return parse_as(Example, "example", arguments)
