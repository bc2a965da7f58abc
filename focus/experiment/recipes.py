"""The pipelines that the paper compares, by name (supplement: Table 2, Figs. 4 and 9 to 11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from focus.losses import SegmentationWeights
from focus.train.config import Settings
from focus.train.methods import Method


@dataclass(frozen=True)
class Recipe:
    """One pipeline: what it changes about a run."""

    name: str
    """As tables have it."""
    method: Method
    """What it trusts."""
    text: str
    """In a few words."""
    neighbours: bool = True
    """L_neighbor looks at a window; False: at the pixel alone, which makes it the pixel term of Baseline."""
    features: bool = True
    """With L_distance and L_preserve."""

    def settings(self, base: Settings) -> Settings:
        """A run by this recipe, else as `base`."""
        return replace(base, method=self.method, segmentation_weights=self.weights(base.segmentation_weights))

    def weights(self, base: SegmentationWeights) -> SegmentationWeights:
        """Those of L_S."""
        if not self.neighbours:
            base = replace(base, neighbor_window=1)
        return base if self.features else replace(base, distance=0.0, preserve=0.0)


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("FOCUS", "focus", "all terms of L_S"),
        Recipe("Perceptual", "focus", "Baseline with L_distance and L_preserve", neighbours=False),
        Recipe("Neighbour", "focus", "Baseline with L_neighbor in place of the pixel term", features=False),
        Recipe("Baseline", "focus", "pixel, area and binary terms only", neighbours=False, features=False),
        Recipe("Backbone-Supervised", "supervised", "segmentation network taught with true masks"),
        Recipe("Pretrained", "pretrained", "outlier-robust rule"),
        Recipe("Deep3D", "skin", "colour of skin as attention in L_pixel"),
        Recipe("MoFA", "mofa", "whole face"),
        Recipe("Backbone-cutmix", "cutmix", "whole face, patches of other photos before the network"),
        Recipe("Backbone-cutout", "cutout", "whole face, grey patches before the network"),
        Recipe("Oracle", "oracle", "true masks"),
    )
}
"""The longest to train first: so they start, and none is left to run alone at the end."""

TABLE2 = (
    *("MoFA", "Backbone-cutout", "Backbone-cutmix", "Deep3D", "Pretrained", "Baseline", "Neighbour", "Perceptual"),
    *("FOCUS", "Backbone-Supervised", "Oracle"),
)
"""Rows of the table, in its order."""

ABLATION = ("Pretrained", "Baseline", "Neighbour", "Perceptual", "FOCUS")
"""What each term of L_S is good for."""


def title_of(settings: Settings) -> str:
    """The name of the recipe that a run was made by."""
    weights = settings.segmentation_weights
    neighbours = weights.neighbor_window > 1
    features = bool(weights.distance or weights.preserve)
    fitting = [recipe for recipe in RECIPES.values() if recipe.method == settings.method]
    exact = [recipe for recipe in fitting if (recipe.neighbours, recipe.features) == (neighbours, features)]
    return (exact or fitting)[0].name
