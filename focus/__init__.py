"""FOCUS: a 3D face from one photo, and the pixels that are not that face.

`focus.ops` holds the operators, `focus.face` the morphable model and its renderer; `fit_photo` and `Reconstructor` turn
photos into a `Reconstruction`. After Li, Morel-Forster, Vetter, Egger and Kortylewski: Robust Model-Based Face
Reconstruction through Weakly-Supervised Outlier Segmentation, CVPR 2023.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from focus._version import __version__
from focus.errors import FocusError

if TYPE_CHECKING:
    from focus import data as data
    from focus import eval as eval
    from focus import experiment as experiment
    from focus import face as face
    from focus import fit as fit
    from focus import losses as losses
    from focus import nets as nets
    from focus import ops as ops
    from focus import report as report
    from focus import train as train
    from focus.fit import fit_photo, fit_photos
    from focus.reconstruction import Reconstruction
    from focus.reconstructor import Reconstructor

__all__ = ["FocusError", "Reconstruction", "Reconstructor", "__version__", "fit_photo", "fit_photos"]

_HOMES = {
    "Reconstruction": "focus.reconstruction",
    "Reconstructor": "focus.reconstructor",
    "fit_photo": "focus.fit",
    "fit_photos": "focus.fit",
}
_PARTS = ("data", "eval", "experiment", "face", "fit", "losses", "nets", "ops", "report", "train")


def __getattr__(name: str) -> Any:
    # On first use: `focus --help` and `from focus import ops` need neither networks nor fitting.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PARTS:
        return importlib.import_module(f"focus.{name}")
    if name == "_C":
        # `from focus import _C` asks here first: the answer says what to do where there is none.
        return importlib.import_module("focus._compiled").load()
    raise AttributeError(f"module 'focus' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__, *_PARTS})
