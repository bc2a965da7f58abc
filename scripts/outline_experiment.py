"""Does a blended outline (`antialias`) help the shape? Synthetic faces, each with and without it, paired.

    python scripts/outline_experiment.py fit --faces 20
    python scripts/outline_experiment.py train --faces 200 --iterations 1200

`fit` reconstructs pictures by `focus fit`, from their colours and disturbed landmarks; `train` lets the network that
the package ships go on learning by the method "mofa", and lets it reconstruct them then. All faces are drawn twice,
with something in front of them and without. The shape error is that of the neutral face after similarity alignment.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import focus
from focus.data.synthetic import SyntheticFaces
from focus.eval import paired_bootstrap, shape_error
from focus.eval.benchmark import TEST_SEED_OFFSET
from focus.face import FaceParameters, MorphableModel
from focus.fit import FitSettings, PhotoFitter
from focus.train import Settings, load_trained, train
from focus.train.trainer import LAST

SEED = 2 * TEST_SEED_OFFSET
"""Of the faces that are scored: no other part of the project uses seeds as high as this."""

INITIAL = Path(focus.__file__).parent / "assets" / "initial_small.safetensors"

Find = Callable[[Any, int], FaceParameters]


def fitting(options: argparse.Namespace, model: MorphableModel, antialias: bool) -> tuple[Find, int]:
    """What finds the face in a picture of a batch, and the size of the pictures."""
    settings = FitSettings(
        image_size=options.size, coarse_steps=options.steps, fine_steps=options.steps, antialias=antialias
    )
    fitter = PhotoFitter(model, settings)

    def find(batch: Any, item: int) -> FaceParameters:
        pixels = (batch.image[item].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        return fitter(pixels, batch.landmarks[item].double().numpy(), name=batch.names[item]).parameters

    return find, options.size


def training(options: argparse.Namespace, model: MorphableModel, antialias: bool) -> tuple[Find, int]:
    """The same by a network that goes on from the shipped one."""
    small = Settings.preset("small")
    # One cycle of the joint stage. Its first iteration is the segmentation network's, which "mofa" does not train.
    cycle = options.iterations + 1
    stages = replace(small.stages, initialise=0, segmentation=0, joint=cycle, cycle=cycle, segmentation_in_cycle=1)
    settings = replace(
        small,
        method="mofa",
        seed=options.seed,
        start=INITIAL,
        stages=stages,
        data=replace(small.data, validation=0),
        antialias=antialias,
        threads=torch.get_num_threads(),
    )
    with tempfile.TemporaryDirectory() as folder:
        train(settings, Path(folder))
        network = load_trained(Path(folder) / LAST).networks.reconstruction.eval()

    def find(batch: Any, item: int) -> FaceParameters:
        with torch.no_grad():
            found: FaceParameters = network(batch.image[item : item + 1])
        return found

    return find, settings.image_size


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("fit", "train"))
    parser.add_argument("--faces", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first of them")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures to fit, pixels")
    parser.add_argument("--steps", type=int, default=80, help="descent steps of a fit, coarse and fine each")
    parser.add_argument("--iterations", type=int, default=1200, help="of the training")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--json", type=Path, help="file for the errors of all pictures")
    options = parser.parse_args(arguments)
    if options.faces < 2:
        parser.error(f"--faces: expected at least 2, got {options.faces}: one has no interval")
    torch.set_num_threads(1)
    small = Settings.preset("small")
    if options.kind == "fit":
        model, make, synthetic = MorphableModel.procedural(), fitting, None
    else:
        face = small.face
        model = MorphableModel.procedural(face.detail).truncated(face.identity, face.expression, face.albedo)
        make, synthetic = training, small.data.synthetic
    errors: dict[tuple[bool, bool], list[float]] = {}
    for antialias in (False, True):
        find, size = make(options, model, antialias)
        faces = SyntheticFaces(model, size, SEED, synthetic)
        for occluded in (False, True):
            begin = time.perf_counter()
            rows = errors[occluded, antialias] = []
            for index in range(options.first, options.first + options.faces):
                batch = faces.batch(index, 1, occluded=occluded)
                found = shape_error(model.neutral_shape(find(batch, 0).identity), batch.neutral_vertices)
                rows.append(float(found.mean()))
            seconds = (time.perf_counter() - begin) / options.faces
            print(
                f"{_half(occluded):10} antialias {'on ' if antialias else 'off'}: shape error, mm, of {options.faces} "
                f"faces: median {np.median(rows):.3f}, mean {np.mean(rows):.3f}; {seconds:.1f} s each",
                flush=True,
            )
    for halves in ((False,), (True,), (False, True)):
        # Of both halves together the mean of each face: its two pictures are no two faces.
        on, off = (np.mean([errors[occluded, antialias] for occluded in halves], axis=0) for antialias in (True, False))
        interval = paired_bootstrap([on], [off])
        print(
            f"{' and '.join(map(_half, halves)):24} on - off: {interval.mean:+.4f} mm "
            f"({interval.low:+.4f} to {interval.high:+.4f}), better on {np.mean(on < off):.0%}"
        )
    if options.json:
        rows_of = {f"{_half(occluded)}, {'on' if on else 'off'}": rows for (occluded, on), rows in errors.items()}
        options.json.write_text(json.dumps(rows_of, indent=1) + "\n")


def _half(occluded: bool) -> str:
    return "occluded" if occluded else "unoccluded"


if __name__ == "__main__":
    main()
