"""What tells the reconstruction network which pixels to trust, after the common initialisation: one row per method.

Everything else that a run does is the same for all methods, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from focus.data.patches import PatchKind
from focus.errors import FocusError
from focus.eval.benchmark import MaskRule, network_mask, robust_rule, skin_rule, true_mask, whole_face
from focus.nets import SegmentationNetwork

Method = Literal["focus", "mofa", "pretrained", "oracle", "skin", "supervised", "cutmix", "cutout"]


@dataclass(frozen=True)
class Traits:
    """What a method does; the defaults are those of a method that knows no occlusion."""

    mask: Literal["whole", "robust", "skin", "true", "network"] = "whole"
    """The rule of its masks, in training and when it is scored."""
    true_masks: bool = False
    """It learns from true masks, which photos do not have."""
    patches: PatchKind | None = None
    """What is laid over the photos that the reconstruction network sees. It is judged by the photos without."""

    @property
    def segments(self) -> bool:
        """It trains the segmentation network."""
        return self.mask == "network"

    @property
    def unsupervised_masks(self) -> bool:
        """Its segmentation network learns by L_S, whose masks may collapse."""
        return self.segments and not self.true_masks


METHODS: Mapping[Method, Traits] = {
    "focus": Traits("network"),
    "mofa": Traits(),
    "pretrained": Traits("robust"),
    "oracle": Traits("true", true_masks=True),
    "skin": Traits("skin"),
    "supervised": Traits("network", true_masks=True),
    "cutmix": Traits(patches="cutmix"),
    "cutout": Traits(patches="cutout"),
}


def mask_rule(method: Method, segmentation: SegmentationNetwork, *, sigma: float, cutoff: float) -> MaskRule:
    """The masks by a method, for training and for scoring.

    Args:
        method: whose.
        segmentation: asked by the methods that train it.
        sigma: of the outlier-robust rule.
        cutoff: of the outlier-robust rule.
    """
    rules: dict[str, MaskRule] = {
        "whole": whole_face,
        "robust": robust_rule(sigma, cutoff),
        "skin": skin_rule,
        "true": true_mask,
        "network": network_mask(segmentation),
    }
    return rules[METHODS[method].mask]


def require_true_masks(method: Method, given: bool) -> None:
    """Raises `FocusError` where a method learns from true masks and there are none."""
    if METHODS[method].true_masks and not given:
        raise FocusError(
            f"method {method!r}: expected true masks to learn from, got faces without; photos have none: use synthetic "
            "faces, or a method without true masks"
        )
