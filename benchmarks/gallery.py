"""The galleries of docs/photos.md: drawn people, each with what `focus fit`, or a network, makes of the photo.

python benchmarks/gallery.py docs/images/gallery.jpg --seeds 1 2
python benchmarks/gallery.py docs/images/network.jpg --seeds 1 2 --network

A row for each person with something before the face, two rows side by side: the photo, the face that was found drawn
into it, its shape, and in orange what hides it. The landmarks are the true ones, as a detector would give them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from focus import Reconstructor
from focus.data import write_image
from focus.data.example import draw_photos
from focus.face import MorphableModel
from focus.fit import PhotoFitter
from focus.report.overlay import draw_overlay
from focus.train import shipped_checkpoint

SIDE, COLUMNS = 192, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--size", type=int, default=384, help="of a photo, pixels")
    shipped = shipped_checkpoint("photos")
    parser.add_argument("--network", nargs="?", type=Path, const=shipped, help="a checkpoint; else that of FOCUS")
    options = parser.parse_args()
    model, rows = MorphableModel.procedural(), []
    reconstruct = PhotoFitter(model) if options.network is None else Reconstructor.load(options.network).photo
    for seed in options.seeds:
        for picture in draw_photos(model, options.size, seed):
            overlay = Image.fromarray(draw_overlay(reconstruct(picture.image, picture.landmarks, name=picture.name)))
            if picture.occluded:
                width = round(overlay.width * SIDE / overlay.height)
                rows.append(np.asarray(overlay.resize((width, SIDE), Image.Resampling.LANCZOS)))
    rows += [np.full_like(rows[0], 255)] * (-len(rows) % COLUMNS)
    lines = [np.concatenate(rows[i : i + COLUMNS], axis=1) for i in range(0, len(rows), COLUMNS)]
    write_image(options.out, np.concatenate(lines))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
