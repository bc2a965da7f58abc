"""`focus model`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table
from rich.text import Text

from focus.bounds import COMPONENTS, SEED
from focus.cli.command import Command, Outcome, parse_as, say
from focus.cli.faces import PROCEDURAL, load_face
from focus.data.images import write_image
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.report.panels import Picture, cut_out, grid

_YAW = (0, 35, 70)
_COMPONENTS = 3
_CELL, _COLUMNS, _FARTHER_MM = 168, 9, 230.0


@dataclass(kw_only=True)
class Model(Command):
    """Describe, convert or draw a face model."""

    source: tyro.conf.Positional[str] = PROCEDURAL
    """procedural, procedural-small, or a model: FOCUS, Basel Face Model, FLAME, arrays, ICT-FaceKit's folder."""
    landmarks68: Path | None = None
    """Text file of the vertices of the 68 iBUG landmarks, for a model file that does not say them."""
    save: Path | None = None
    """Write the model to this file, .focusmodel or .safetensors."""
    preview: Path | None = None
    """Draw the mean, the first components and random faces to this picture."""
    seed: Annotated[int, SEED] = 0
    """Of the random faces."""
    synthetic_albedo: tyro.conf.FlagCreatePairsOff[bool] = False
    """Give a model without colour a synthetic one."""
    identity: Annotated[int | None, COMPONENTS] = None
    """Keep the first components only; so for the next two."""
    expression: Annotated[int | None, COMPONENTS] = None
    """Number of expression components."""
    albedo: Annotated[int | None, COMPONENTS] = None
    """Number of albedo components."""

    def run(self) -> Outcome:
        """Describes the model; writes what was asked for."""
        model = load_face(self.source, albedo=self.synthetic_albedo, landmarks68=self.landmarks68)
        model = model.truncated(self.identity, self.expression, self.albedo)
        facts = describe(model)
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), Text(str(value)))
        outcome = Outcome(read=[self.source], shown=[table], details={"model": facts}, good=True)
        if self.save is not None:
            self.save.parent.mkdir(parents=True, exist_ok=True)
            model.save(self.save)
            outcome.written.append(self.save)
        if self.preview is not None:
            if not model.albedo_count:
                say("the model has no colour components; --synthetic-albedo adds some")
            self.preview.parent.mkdir(parents=True, exist_ok=True)
            outcome.written.append(write_image(self.preview, preview_sheet(model, self.seed)))
        return outcome


def describe(model: MorphableModel) -> dict[str, object]:
    """A model in numbers."""
    extent = (model.mean_shape.amax(dim=0) - model.mean_shape.amin(dim=0)).tolist()
    return {
        "name": model.name,
        "licence": model.licence,
        "vertices": model.vertex_count,
        "faces": model.faces.shape[0],
        "identity": model.identity_count,
        "expression": f"{model.expression_count} ({model.expression_prior})",
        "albedo": model.albedo_count,
        "size_mm": " x ".join(f"{value:.0f}" for value in extent),
        "landmarks": "68" if model.landmarks7 is None else "68 and the 7 of NoW",
        "texture_coordinates": "yes" if model.uv is not None else "no",
        "fingerprint": model.fingerprint(),
        **({"notes": "; ".join(model.notes)} if model.notes else {}),
    }


@torch.no_grad()
def preview_sheet(model: MorphableModel, seed: int) -> Picture:
    """The mean from three sides, random faces, and the first components at minus and plus two deviations."""
    generator = torch.Generator().manual_seed(seed)
    frames: list[tuple[str, FaceParameters]] = []
    for yaw in _YAW:
        face = FaceParameters.mean(model)
        face.rotation[0, 1] = torch.tensor(float(yaw)).deg2rad()
        frames.append((f"mean, {yaw}\N{DEGREE SIGN}", face))
    for number in range(6):
        face = FaceParameters.mean(model)
        draws = {
            kind: torch.randn(getattr(face, kind).shape, generator=generator)
            for kind in ("identity", "expression", "albedo")
        }
        if model.expression_prior == "unit_interval":
            draws["expression"] = (draws["expression"] - 1).clamp(0, 1)
        face = replace(face, **draws)
        face.rotation[0, 1] = 0.3 * (-1) ** number
        frames.append((f"random {number + 1}", face))
    for kind in ("identity", "expression", "albedo"):
        low = 0.0 if kind == "expression" and model.expression_prior == "unit_interval" else -2.0
        for component in range(min(_COMPONENTS, getattr(model, f"{kind}_count"))):
            for value in (low, 1.0 if low == 0 else 2.0):
                face = FaceParameters.mean(model)
                getattr(face, kind)[0, component] = value
                frames.append((f"{kind} {component + 1}, {value:+.0f}", face))
    renderer = Renderer(model, _CELL)
    pictures = []
    for _, face in frames:
        face.translation[:, 2] = _FARTHER_MM  # room round the head
        face.lighting[:, :, 0] *= 0.75
        face.lighting[:, :, 1], face.lighting[:, :, 2] = 0.4, -0.6  # from above and from the camera
        rendering = renderer(face)
        pictures.append(cut_out(rendering.image[0], rendering.mask[0]))
    starts = range(0, len(frames), _COLUMNS)
    captions = [[text for text, _ in frames[start : start + _COLUMNS]] for start in starts]
    return grid([pictures[start : start + _COLUMNS] for start in starts], captions=captions)


def parse(arguments: Sequence[str]) -> Model:
    """Options of `focus model`."""
    return parse_as(Model, "model", arguments)
