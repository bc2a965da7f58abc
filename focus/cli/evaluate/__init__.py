"""`focus evaluate`: one module for each of its commands."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from focus.cli import choose
from focus.cli.command import Command

CHOICES = {
    "checkpoints": "Score trained networks on synthetic test faces, where the truth is known.",
    "segmentation": "Masks of rules, networks and folders on the fixed test set (Table 1 of the paper), or on photos.",
    "pictures": "Write the pictures of the fixed test set, for other programs to find masks in.",
    "compare": "Tables with intervals out of files of results, of any number of runs.",
    "pose": "Errors over the yaw of the face (Fig. 3 of the paper).",
    "misfit": "Estimate what a network gets wrong about every face, and test taking it off (FOCUS-MP).",
    "runs": "One table, and the claims, over several runs of the demo.",
    "masks": "Score a folder of masks against true masks.",
    "predictions": "Reconstruct the images of the NoW challenge, in the layout that now reads.",
    "now": "Score meshes against the scans of the NoW challenge.",
}


def parse(arguments: Sequence[str]) -> Command:
    """Options of the chosen command. Without one, or with ``--help``, prints what there is and ends the process."""
    text = "Scores of networks, reconstructions and masks."
    name, rest = choose("focus evaluate", text, CHOICES, arguments)
    command: Command = importlib.import_module(f"focus.cli.evaluate.{name}").parse(rest)
    return command
