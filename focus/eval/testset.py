"""The fixed test sets of synthetic faces, by version and seed: what the paper shows in its Figs. 5 to 8."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from focus.data.sampling import PoseSettings
from focus.data.synthetic import SyntheticFaces, SyntheticSettings
from focus.errors import FocusError
from focus.face import MorphableModel

VERSION = 1
"""Of what is drawn. Results of different versions are not compared."""

SEED_OFFSET = 2**41
"""Beyond the seeds of training, validation and the demo's test faces."""

_SETTINGS = {
    "general": SyntheticSettings(),
    "extreme_light": SyntheticSettings(extreme_light_fraction=1.0),
    "skin_coloured": SyntheticSettings(occluders=("hand", "skin_patch", "face_patch")),
    "large_pose": SyntheticSettings(pose=PoseSettings(wide_yaw_fraction=1.0)),
}

SUBSETS = tuple(_SETTINGS)
"""general: all kinds of occluders, poses and light, poses wider than the preset `small` trains with; extreme_light:
every face lit hard from one side; skin_coloured: hands, and patches with the colours of skin or of another face;
large_pose: yaw uniform up to 60 degrees.
"""


def benchmark_faces(model: MorphableModel, image_size: int, subset: str, seed: int = 0) -> SyntheticFaces:
    """One of the sets, in the model and image size of the networks that are tested.

    Args:
        model: the face; sets of different models hold different faces.
        image_size: side of the pictures, pixels.
        subset: one of `SUBSETS`.
        seed: 0 is the test set; others are for choosing settings.

    Raises:
        FocusError: no such subset, or a seed outside [0, 2**32).
    """
    if subset not in _SETTINGS:
        raise FocusError(f"test set: subset: expected one of {', '.join(SUBSETS)}, got {subset!r}")
    if not 0 <= seed < 2**32:
        raise FocusError(f"test set: seed: expected a number in [0, 2**32), got {seed}")
    # Each subset has faces of its own: one face in two of them would count twice in what is said of both.
    number = SEED_OFFSET + len(SUBSETS) * seed + SUBSETS.index(subset)
    return SyntheticFaces(model, image_size, number, replace(_SETTINGS[subset]))


def refuse_name(folder: Path) -> None:
    """Raises `FocusError` where results on the photos of a folder would be taken for those on a subset."""
    if folder.resolve().name in SUBSETS:
        raise FocusError(f"{folder}: results would be called as a subset of the test set; rename the folder")


def digest(faces: SyntheticFaces, count: int) -> str:
    """SHA-256 of version, face model, settings and drawn parameters of the first `count` faces.

    Two machines with the same digest drew the same faces in the same world. Pixels are not part of it: they may differ
    by one level between processors.
    """
    world = {"version": VERSION, "image_size": faces.image_size, "settings": asdict(faces.settings)}
    world["model"] = faces.model.fingerprint()
    content = json.dumps(world, sort_keys=True) + faces.digest(0, count)
    return hashlib.sha256(content.encode()).hexdigest()
