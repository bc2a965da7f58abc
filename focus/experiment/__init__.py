"""Comparisons of whole pipelines, trained and scored alike: the tables and figures of the paper."""

from focus.experiment.recipes import RECIPES, Recipe, title_of
from focus.experiment.run import EXPERIMENTS, ExperimentResult, ExperimentSettings, run_experiment

__all__ = [
    "EXPERIMENTS",
    "RECIPES",
    "ExperimentResult",
    "ExperimentSettings",
    "Recipe",
    "run_experiment",
    "title_of",
]
