"""The losses of FOCUS (Li et al., CVPR 2023), one pure function per term, and the two weighted sums.

I_T is the photo (`target`), I_R the render (`reconstruction`), R the mask of the rendered face (`face`), M the
predicted mask (`mask`), m = R M the face that is seen (`visible`), F recognition features. Images are ``[B, 3, H, W]``
RGB in [0, 1], masks ``[B, 1, H, W]`` in [0, 1], landmarks ``[B, 68, 2]`` pixels. Every term is a scalar.
"""

from focus.losses.joined import JoinedPixels
from focus.losses.terms import (
    PAPER_IMAGE_SIZE,
    ROBUST_CUTOFF,
    ROBUST_SIGMA,
    annealed_sigma,
    area,
    binary,
    distance,
    landmark,
    mask_cross_entropy,
    neighbor,
    perceptual,
    pixel,
    preserve,
    regularisation,
    robust,
)
from focus.losses.weighted import (
    ReconstructionWeights,
    SegmentationWeights,
    TeachingWeights,
    hiding_threshold,
    reconstruction_loss,
    segmentation_loss,
    teaching_loss,
)

__all__ = [
    "PAPER_IMAGE_SIZE",
    "ROBUST_CUTOFF",
    "ROBUST_SIGMA",
    "JoinedPixels",
    "ReconstructionWeights",
    "SegmentationWeights",
    "TeachingWeights",
    "annealed_sigma",
    "area",
    "binary",
    "distance",
    "hiding_threshold",
    "landmark",
    "mask_cross_entropy",
    "neighbor",
    "perceptual",
    "pixel",
    "preserve",
    "reconstruction_loss",
    "regularisation",
    "robust",
    "segmentation_loss",
    "teaching_loss",
]
