"""Photos a second: faces found, and photos fitted, by one process and by several.

python benchmarks/photos.py --photos 60 --workers 2
python benchmarks/photos.py --photos 12 --fit --workers 2

The photos are those of `focus example`, of several seeds. Nothing is timed unless most faces are found in their places:
some of these people are drawn with more hair than face.
Without MediaPipe (extra detect) only fits are timed, from the true landmarks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from focus.data import read_image, write_image
from focus.data.detection import make_detector
from focus.data.detection.photos import detect_photos
from focus.data.detection.search import search_faces
from focus.data.example import draw_photos
from focus.face import MorphableModel
from focus.fit import FitSettings, run

MOST = 0.8
LARGEST_ERROR = 25.0
"""Mean distance of found from true landmarks, % of the outer eye corners': under masks they are guesses."""


def draw(folder: Path, count: int, size: int) -> list[tuple[Path, np.ndarray]]:
    """Photos and their true landmarks, [68, 2]."""
    model, photos = MorphableModel.procedural(), []
    for seed in range(count):
        for picture in draw_photos(model, size, seed):
            if len(photos) == count:
                return photos
            path = folder / f"{seed}_{picture.name}.jpg"
            write_image(path, picture.image)
            photos.append((path, picture.landmarks))
    return photos


def check(photos: list[tuple[Path, np.ndarray]]) -> int:
    """How many faces are found, each in its place; ends the program where these are too few."""
    detector, right = make_detector(), 0
    for path, true in photos:
        found = search_faces(read_image(path), detector)
        error = np.linalg.norm(found[0].points - true, axis=1).mean() if found else np.inf
        if 100 * error / np.linalg.norm(true[36] - true[45]) < LARGEST_ERROR:
            right += 1
        else:
            print(f"{path.name}: the face is not found, or {error:.1f} pixels off")
    if right < MOST * len(photos):
        raise SystemExit(f"{right} of {len(photos)} faces are found: nothing is timed")
    return right


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=24, help="how many")
    parser.add_argument("--size", type=int, default=512, help="side of the photos, pixels")
    parser.add_argument("--workers", type=int, default=2, help="processes; compared with one")
    parser.add_argument("--fit", action="store_true", help="also time focus.fit.run")
    parser.add_argument("--json", type=Path, help="file to write the table to")
    parser.add_argument("--quick", action="store_true", help="two photos, small: does it run?")
    options = parser.parse_args(arguments)
    count, size = (2, 128) if options.quick else (options.photos, options.size)
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        photos = draw(Path(place), count, size)
        workers = list(dict.fromkeys((1, options.workers)))
        if importlib.util.find_spec("mediapipe") is None:
            print("no mediapipe: the search for faces is not timed")
        else:
            print(f"{check(photos)} of {count} faces are found in their places")
            for number in workers:
                start = time.perf_counter()
                names = {path: path.name for path, _ in photos}
                detect_photos(names, Path(place, f"out{number}", "landmarks.csv"), workers=number)
                rows[f"faces found, workers {number}"] = count / (time.perf_counter() - start)
        if options.fit or options.quick:
            model = MorphableModel.procedural("small" if options.quick else "full")
            settings = FitSettings(image_size=32, coarse_steps=1, fine_steps=1) if options.quick else FitSettings()
            for number in workers:
                start = time.perf_counter()
                report = run([], photos, model, Path(place, f"fit{number}"), settings, workers=number)
                assert len(report.written) == count, report.skipped
                rows[f"photos fitted, workers {number}"] = count / (time.perf_counter() - start)
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in about.items()), f"{count} photos of {size} pixels", sep="; ")
    for name, value in rows.items():
        print(f"{name:28} {value:8.2f} photos/s, with the start of the processes")
    if options.json:
        options.json.write_text(json.dumps({**about, "photos": count, "size": size, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
