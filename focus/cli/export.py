"""`focus export`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from focus.cli.command import Command, Outcome, parse_as, say
from focus.cli.faces import load_face
from focus.errors import FocusError
from focus.report.files import check_folder
from focus.train import shipped_checkpoint
from focus.train.checkpoint import load_trained
from focus.train.portable import Format, export_portable


@dataclass(kw_only=True)
class Export(Command):
    """Write the networks of a checkpoint for programs without FOCUS."""

    checkpoint: tyro.conf.Positional[Path | None] = None
    """Written by focus train. Without, the network that comes with FOCUS."""
    out: Path
    """Folder of the networks, of the face model's arrays (face.npz), and of about.json."""
    format: Format = "onnx"
    """onnx (extra export), or torch: .pt2 files of torch.export."""
    model: str | None = None
    """Face model, where the one that the checkpoint names has moved: a model file."""

    def run(self) -> Outcome:
        """Exports both networks, and compares what they say with what the networks say."""
        check_folder(self.out)
        checkpoint = self.checkpoint or shipped_checkpoint("photos")
        if checkpoint is None:
            raise FocusError("focus export: this build has no network of its own: name a checkpoint")
        trained = load_trained(checkpoint, model=None if self.model is None else load_face(self.model))
        say(f"model: {trained.model.name} ({trained.model.licence})")
        written = export_portable(trained, self.out, self.format)
        if not trained.segments:
            say("the segmentation network has not learnt: it is left out")
        return Outcome(read=[str(checkpoint)], written=written, details={"segmentation": trained.segments})


def parse(arguments: Sequence[str]) -> Export:
    """Options of `focus export`."""
    return parse_as(Export, "export", arguments)
