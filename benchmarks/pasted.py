"""How well `focus fit` or a network finds what is drawn before the faces of photos, and what that does to their shapes.

    python benchmarks/pasted.py PHOTOS --landmarks landmarks.csv [--model FILE] [--each 2] [--save FOLDER]
    python benchmarks/pasted.py PHOTOS --landmarks landmarks.csv --network [CHECKPOINT]

Each photo is fitted, an occluder of the synthetic world is drawn before its face in the light and with the skin of the
fit (`focus.data.pasting`), and the result is fitted with the same landmarks. What hides the face in the photo itself
counts as face here. For each kind of occluder: outlier IoU and F1 over the drawn face, the part of what is not hidden
that is called so, and how far the neutral shape moves from that of the photo without it, mm.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from focus import Reconstructor
from focus.data import read_landmarks, write_image
from focus.data.occluders import OCCLUDERS
from focus.data.pasting import paste, photo_scene
from focus.errors import FocusError
from focus.eval.identity import shape_distances
from focus.eval.masks import THRESHOLD, mask_scores, outlier_iou
from focus.face import MorphableModel
from focus.fit import PhotoFitter
from focus.train import shipped_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--model", default="procedural")
    parser.add_argument("--each", type=int, default=2, help="occluders for each photo")
    parser.add_argument("--kinds", nargs="+", default=tuple(OCCLUDERS), choices=tuple(OCCLUDERS), metavar="KIND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for the pictures")
    shipped = shipped_checkpoint("photos")
    parser.add_argument("--network", nargs="?", type=Path, const=shipped, help="a checkpoint; else that of FOCUS")
    options = parser.parse_args()
    model = MorphableModel.procedural() if options.model == "procedural" else MorphableModel.load(options.model)
    fitter = PhotoFitter(model)
    find = fitter if options.network is None else Reconstructor.load(options.network).photo
    if options.save:
        options.save.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for number, (name, points) in enumerate(read_landmarks(options.landmarks).points.items()):
        try:
            whole = fitter(options.photos / name, points)
        except FocusError as error:
            print(f"{name}: left out: {error}")
            continue
        crop = np.rint(whole.image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        marks = whole.alignment.to_crop(np.asarray(points, dtype=np.float64))
        plain = fitter(crop, marks)  # as those that follow: the axis of the lens through the middle of the crop
        crop = np.rint(plain.image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        marks = plain.alignment.to_crop(marks)
        camera = plain.camera_at(plain.image.shape[-1])
        for repeat in range(options.each):
            rng = np.random.default_rng([options.seed, number, repeat])
            kind = options.kinds[(number * options.each + repeat) % len(options.kinds)]
            pasted = paste(crop, photo_scene(plain.model, plain.parameters, camera, rng), rng, (kind,))
            found = find(pasted.image, marks)
            if options.save:
                write_image(options.save / f"{Path(name).stem}_{repeat}.png", pasted.image)
            seen = torch.from_numpy(found.alignment.crop_mask(np.where(pasted.hidden, 0, 255).astype(np.uint8)))
            masks = found.mask[None], seen[None, None].float(), found.face[None]
            face = found.face[0] > 0.5
            skin = float((face & seen & (found.mask[0] < THRESHOLD)).sum() / (face & seen).sum().clamp(min=1))
            f1 = float(mask_scores(*masks, threshold=THRESHOLD).f1)
            before = plain if options.network is None else find(crop, marks)
            shapes = torch.stack([one.neutral_vertices[one.region] for one in (before, found)])
            moved = float(shape_distances(shapes)[0, 1])
            scores = float(outlier_iou(*masks)), f1, skin, moved
            rows[pasted.occluder].append(scores)
            print(
                f"{name} {pasted.occluder}: outlier IoU {scores[0]:.3f}, F1 {f1:.3f}, skin {skin:.3f}, {moved:.2f} mm"
            )
    if not rows:
        raise SystemExit("no photo could be fitted")
    print(f"{'occluder':40} faces  outlier IoU (least)     F1   skin     mm")
    for kind, scores_of_kind in [*sorted(rows.items()), ("all", [row for found in rows.values() for row in found])]:
        table = np.array(scores_of_kind)
        mean, least = np.nanmean(table, axis=0), np.nanmin(table[:, 0])
        print(f"{kind:40} {len(table):5} {mean[0]:12.2f} ({least:.2f}) {mean[1]:10.3f} {mean[2]:6.1%} {mean[3]:6.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
