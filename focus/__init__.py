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
    from focus.fit import fit_photo
    from focus.reconstruction import Reconstruction
    from focus.reconstructor import Reconstructor

__all__ = ["FocusError", "Reconstruction", "Reconstructor", "__version__", "fit_photo"]

_HOMES = {
    "Reconstruction": "focus.reconstruction",
    "Reconstructor": "focus.reconstructor",
    "fit_photo": "focus.fit",
}


def __getattr__(name: str) -> Any:
    # On first use: `focus --help` and `from focus import ops` need neither networks nor fitting.
    if name not in _HOMES:
        raise AttributeError(f"module 'focus' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
