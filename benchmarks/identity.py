"""Are the shapes that `focus fit` finds those of the persons? On drawn people, or on photos of people from all sides.

python benchmarks/identity.py synthetic --people 8                     # faces drawn with a model and fitted with it
python benchmarks/identity.py synthetic --model ict_face.npz --occluded
python benchmarks/identity.py photos FOLDER --landmarks landmarks.csv  # FOLDER/PERSON/ANGLE.jpg, ANGLE in degrees

The first prints the error of the neutral shape beside that of the mean face, by yaw; both print distances of shapes
within and between people and how often the nearest shape is of the same person.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from focus.data.landmarks import read_landmarks
from focus.data.occluders import draw_occluder
from focus.data.sampling import FaceSampler, PoseSettings
from focus.data.scene import Scene
from focus.eval.identity import identity_scores, shape_distances
from focus.eval.shape import shape_error
from focus.face import Camera, MorphableModel
from focus.face.contour import LandmarkLocator
from focus.face.renderer import draw, shade
from focus.fit import FitSettings, PhotoFitter

SIDE = 384
"""Of a drawn photo, pixels."""
PIXELS_PER_MM = 1.35
YAWS = (0, 15, 30, 45, 60)
DISTANCES = (350.0, 600.0, 1000.0, 2000.0)
"""From the camera to the middle of the head, mm: a telephone held by oneself to a telephoto lens."""
LANDMARK_NOISE = 1.2
"""Standard deviation, pixels of a drawn photo: about 1.3% of the distance of the outer eye corners."""
KINDS = ("hand", "surgical_mask", "scarf", "sunglasses", "mug", "phone", "hair_fringe", "ball")


@dataclass
class Drawn:
    """A photo and its truth."""

    photo: NDArray[np.uint8]
    landmarks: NDArray[np.float64]
    neutral: torch.Tensor
    person: int
    yaw: float
    distance: float
    occluder: str


def draw_photos(model: MorphableModel, people: int, yaws: tuple[int, ...], occluded: bool, seed: int) -> list[Drawn]:
    """Each person from each side, with the expression, the light and the distance of that photo."""
    sampler = FaceSampler(model, SIDE, PoseSettings(), 2.5, 0.1)
    locator = LandmarkLocator(model)
    camera = Camera(SIDE)
    photos = []
    for person in range(people):
        who = sampler.sample(seed, person)
        for number, yaw in enumerate(yaws):
            index = person * len(yaws) + number
            rng = np.random.default_rng([seed, index])
            other = sampler.sample(seed + 1, index)
            angles = [0.12 * rng.standard_normal(), np.radians(yaw * rng.choice([-1, 1])), 0.1 * rng.standard_normal()]
            face = replace(other, identity=who.identity, albedo=who.albedo, rotation=torch.tensor([angles]).float())
            distance = float(rng.choice(DISTANCES))
            vertices = model.shape(face.identity, face.expression)
            shift = torch.tensor([*(8 * rng.standard_normal(2)), distance - 1000]).float()
            # The head turns about its middle, which lies behind the model's origin or at it, as the model has it.
            middle = vertices[0, model.landmarks68[[0, 16]]].mean(dim=0)
            placed = camera.transform(vertices - middle, face.rotation, shift[None])
            focal = PIXELS_PER_MM * distance
            screen = torch.cat([placed[..., :2] / placed[..., 2:] * focal + (SIDE - 1) / 2, placed[..., 2:]], dim=2)
            _, colors = shade(placed, model.albedo(face.albedo), face.lighting, model.topology)
            image, mask, _ = draw(screen, colors, model.topology, (SIDE, SIDE))
            wall = rng.uniform(0.1, 0.8, (1, 1, 3)) + 0.03 * rng.standard_normal((SIDE, SIDE, 3))
            picture = np.where(mask[0, 0, ..., None] > 0, image[0].permute(1, 2, 0).numpy(), wall)
            points = locator(vertices - middle, face.rotation, screen[..., :2], shift[None])[0].double().numpy()
            occluder = "none"
            if occluded:
                scene = _scene(model, face, picture, mask[0, 0].numpy() > 0, points)
                layer, occluder = draw_occluder(scene, KINDS, (0.1, 0.4), rng)
                picture = layer.over(picture)
            picture = picture + 0.01 * rng.standard_normal(picture.shape)
            noisy = points + LANDMARK_NOISE * rng.standard_normal((68, 2))
            photo = (picture.clip(0, 1) * 255).round().astype(np.uint8)
            neutral = model.neutral_shape(face.identity)[0]
            photos.append(Drawn(photo, noisy, neutral, person, yaw, distance, occluder))
    return photos


def _scene(model, face, picture, mask, points) -> Scene:  # type: ignore[no-untyped-def]
    albedo = model.albedo(face.albedo)[0].numpy()
    return Scene(
        size=SIDE,
        parameters=face,
        landmarks=points,
        average_landmarks=lambda: points,
        rotation=Camera.rotation_matrix(face.rotation.double())[0].numpy(),
        head=np.append(points[[0, 16]].mean(axis=0), 0.0),
        pixels_per_mm=PIXELS_PER_MM,
        lighting=face.lighting[0].double().numpy(),
        skin=albedo.mean(axis=0),
        hair=np.array([0.2, 0.14, 0.1], dtype=np.float32),
        face=np.where(mask[..., None], picture, 0).astype(np.float32),
        face_mask=mask,
    )


def synthetic(fitter: PhotoFitter, options: argparse.Namespace) -> dict[str, object]:
    """Fits drawn photos; errors by yaw and by distance, and the scores."""
    other = None if options.drawn_with is None else _model(options.drawn_with)
    if other is not None and not other.albedo_count:
        other = other.with_gaussian_process_albedo()
    photos = draw_photos(other or fitter.model, options.people, tuple(options.yaws), options.occluded, options.seed)
    mean = fitter.model.mean_shape[fitter.region]
    shapes, errors, means, seconds = [], [], [], []
    for photo in photos:
        start = time.process_time()
        found = fitter(photo.photo, photo.landmarks).neutral_vertices[fitter.region]
        seconds.append(time.process_time() - start)
        shapes.append(found)
        if other is not None:
            continue
        truth = photo.neutral[fitter.region][None]
        errors.append(float(shape_error(found[None], truth).mean()))
        means.append(float(shape_error(mean[None], truth).mean()))
    error, of_mean = np.array(errors), np.array(means)
    table = {}
    for name, values in (("yaw", [p.yaw for p in photos]), ("distance", [p.distance for p in photos])):
        for value in sorted(set(values)) if errors else ():
            rows = np.array(values) == value
            table[f"{name} {value:g}"] = {
                "error_mm": float(error[rows].mean()),
                "mean_face_mm": float(of_mean[rows].mean()),
                "better": 1 - float(error[rows].mean() / of_mean[rows].mean()),
            }
    for count in options.together if errors else ():
        found = []
        for person in range(options.people):
            own = [(p.photo, p.landmarks) for p in photos if p.person == person]
            for first in range(0, len(own) - count + 1, count):
                several = fitter.together(own[first : first + count])[0].neutral_vertices[fitter.region]
                truth = photos[person * len(options.yaws)].neutral[fitter.region][None]
                found.append(float(shape_error(several[None], truth).mean()))
        value = float(np.mean(found))
        table[f"{count} together"] = {
            "error_mm": value,
            "mean_face_mm": float(of_mean.mean()),
            "better": 1 - value / float(of_mean.mean()),
        }
    distances = shape_distances(torch.stack(shapes))
    scores = identity_scores(distances, [str(p.person) for p in photos], [p.yaw for p in photos]).as_dict()
    return {"errors": table, "scores": scores, "cpu_seconds_per_photo": float(np.mean(seconds))}


def real(fitter: PhotoFitter, options: argparse.Namespace) -> dict[str, object]:
    """Fits FOLDER/PERSON/ANGLE.*; a landmark row names its photo by that path or by the name alone."""
    points = read_landmarks(options.landmarks).points
    shapes, people, yaws = [], [], []
    for path in sorted(options.folder.glob("*/*")):
        number = re.search(r"-?\d+(\.\d+)?", path.stem)
        key = next((k for k in (path.relative_to(options.folder).as_posix(), path.name) if k in points), None)
        if number is None or key is None:
            print(f"{path}: no angle in its name or no landmarks; left out")
            continue
        shapes.append(fitter(path, points[key]).neutral_vertices[fitter.region])
        people.append(path.parent.name)
        yaws.append(float(number.group()))
    if len(shapes) < 2:
        raise SystemExit(f"{options.folder}: expected at least two photos PERSON/ANGLE.jpg with landmarks")
    return {
        "photos": len(shapes),
        "scores": identity_scores(shape_distances(torch.stack(shapes)), people, yaws).as_dict(),
    }


def _model(name: str) -> MorphableModel:
    return MorphableModel.procedural(name) if name in ("full", "small") else MorphableModel.load(name)  # type: ignore[arg-type]


def main(arguments: list[str] | None = None) -> dict[str, object]:
    """Measures and prints; the result is that of --json."""
    parser = argparse.ArgumentParser(description="Shapes of persons: errors, and distances within and between people.")
    commands = parser.add_subparsers(dest="command", required=True)
    drawn, taken = commands.add_parser("synthetic"), commands.add_parser("photos")
    drawn.add_argument("--people", type=int, default=8)
    drawn.add_argument("--yaws", type=int, nargs="+", default=YAWS)
    drawn.add_argument("--occluded", action="store_true", help="something in front of each face")
    drawn.add_argument("--drawn-with", help="another model than the one that is fitted: then no errors, scores only")
    drawn.add_argument("--together", type=int, nargs="*", default=(), help="numbers of photos that share an identity")
    drawn.add_argument("--seed", type=int, default=1)
    taken.add_argument("folder", type=Path)
    taken.add_argument("--landmarks", type=Path, required=True)
    for command in (drawn, taken):
        command.add_argument("--model", default="full", help="a file, or the procedural face: full or small")
        command.add_argument("--size", type=int, default=224)
        command.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    fitter = PhotoFitter(_model(options.model), FitSettings(image_size=options.size))
    result = (synthetic if options.command == "synthetic" else real)(fitter, options)
    for name, row in result.get("errors", {}).items():  # type: ignore[attr-defined]
        print(f"{name:>14s}  " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print("  ".join(f"{key} {value:.3f}" for key, value in result["scores"].items()))  # type: ignore[attr-defined]
    if "cpu_seconds_per_photo" in result:
        print(f"{result['cpu_seconds_per_photo']:.2f} s of processor time a photo")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
