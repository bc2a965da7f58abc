"""Measures how far each witness of the masks of `focus fit` may be believed, on photos whose true masks are known.

    python benchmarks/witnesses.py PHOTOS --landmarks landmarks.csv --truth MASKS [--model FILE]

PHOTOS, landmarks and masks as for `focus evaluate segmentation` (white where the face is seen). Prints F1 and outlier
IoU of the fits, and the weights that a logistic regression gives the witnesses (`focus.fit.witnesses`) at the last mask
of each fit. The weights decide which masks the next fits have, so repeat it after they were changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from focus.data.landmarks import read_landmarks
from focus.errors import FocusError
from focus.eval.mask_files import read_true_mask
from focus.eval.masks import THRESHOLD, mask_scores, outlier_iou
from focus.face import MorphableModel, Renderer
from focus.fit import PhotoFitter
from focus.fit.appearance import PixelFace
from focus.fit.pieces import pieces_of_crop
from focus.fit.region import crop_model
from focus.fit.witnesses import NAMES, WEIGHTS, vertex_fields, witnesses

EVERY = 7
"""Of the pixels of a photo, one in so many is looked at: neighbours say the same."""
STEPS, RIDGE = 100, 1e-3


def logistic(said: Tensor, seen: Tensor, count: Tensor) -> Tensor:
    """Weights ``[W]`` of witnesses ``[N, W]`` for labels ``[N]`` in {0, 1} that count as much as `count` says."""
    weights = torch.tensor(WEIGHTS, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        error = F.binary_cross_entropy_with_logits(said @ weights, seen, reduction="none")
        loss = (count * error).sum() / count.sum() + RIDGE * weights[1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--landmarks", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True, help="folder of the true masks, NAME.png for each photo")
    parser.add_argument("--model", default="procedural")
    options = parser.parse_args()
    model = MorphableModel.procedural() if options.model == "procedural" else MorphableModel.load(options.model)
    fitter = PhotoFitter(model)
    said, seen, count, scores = [], [], [], []
    for name, points in read_landmarks(options.landmarks).points.items():
        try:
            found = fitter(options.photos / name, points)
            size = found.photo.shape[0], found.photo.shape[1]
            truth = read_true_mask(options.truth / Path(name).with_suffix(".png"), size)
        except FocusError as error:
            print(f"{name}: left out: {error}")
            continue
        face = torch.from_numpy(found.alignment.crop_mask(truth))
        inside = torch.from_numpy(found.alignment.inside(size)) & (found.face[0] > 0.5)
        masks = (found.mask[None], face[None, None].float(), inside[None, None].float())
        hidden = bool((~face & inside).any())
        iou = float(outlier_iou(*masks)) if hidden else float("nan")
        f1 = float(mask_scores(*masks, threshold=THRESHOLD).f1)
        scores.append((iou, f1))
        print(f"{name}: outlier IoU {iou:.3f}, F1 {f1:.3f}")
        cropped = crop_model(found.model, found.region)
        rendering = Renderer(cropped, found.image.shape[-1], camera=found.camera)(found.parameters)
        pieces = pieces_of_crop(found.image[None])
        pixels = PixelFace.draw(found.image[None], rendering, cropped, vertex_fields(cropped), pieces)
        heard = witnesses(pixels, pixels.of(found.rendering)[None], pixels.of(found.mask))[0]
        kept = pixels.of(inside).nonzero()[::EVERY, 0]
        labels = pixels.of(face)[kept].float()
        said.append(heard[:, kept].T)
        seen.append(labels)
        count.append(torch.full_like(labels, 1 / max(len(labels), 1)))
    if not said:
        raise SystemExit("no photo could be fitted")
    with np.errstate(all="ignore"):
        print(f"mean: outlier IoU {np.nanmean([s[0] for s in scores]):.3f}, F1 {np.mean([s[1] for s in scores]):.3f}")
    measured = logistic(torch.cat(said), torch.cat(seen), torch.cat(count))
    for name, old, new in zip(NAMES, WEIGHTS, measured, strict=True):
        print(f"{name:32} {old:6.2f} -> {float(new):6.2f}")


if __name__ == "__main__":
    main()
