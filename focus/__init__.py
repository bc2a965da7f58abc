"""FOCUS: a 3D face from one photo, and the pixels that are not that face.

`focus.ops` holds the operators, `focus.face` the morphable model and its renderer; `focus.fit_photo` and `focus.Reconstructor` turn photos
into faces. After Li, Morel-Forster, Vetter, Egger and Kortylewski: Robust Model-Based Face Reconstruction through Weakly-Supervised
Outlier Segmentation, CVPR 2023.
"""

from focus._version import __version__
from focus.errors import FocusError

__all__ = ["FocusError", "__version__"]
