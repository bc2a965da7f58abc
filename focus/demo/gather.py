"""What the page of the demo shows, gathered from the checkpoints and logs of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from focus.data.batches import FaceBatch
from focus.demo.jobs import ORDER, build_methods, draw_large, shown_in_rounds, test_set
from focus.eval.benchmark import score
from focus.eval.claims import Finding
from focus.eval.shape import fit_similarity
from focus.experiment.provenance import machine
from focus.face import Renderer
from focus.report.charts import Curve
from focus.report.demo_page import DemoReport, Faces
from focus.report.viewer import Mesh, viewer
from focus.train.checkpoint import load_trained
from focus.train.config import Settings
from focus.train.log import read_log
from focus.train.schedule import plan
from focus.train.trainer import LAST

EXAMPLES = 8
"""Test faces that the report shows."""


@torch.no_grad()
def gather_report(
    metrics: dict[str, Any],
    findings: list[Finding],
    training: Mapping[str, Settings],
    runs: Path,
    initial: Path,
    rounds: Sequence[Faces],
    minutes: float,
) -> DemoReport:
    """The report of a run.

    Args:
        metrics: metrics.json.
        findings: claims and what came out.
        training: name -> settings of the trained methods.
        runs: folder of their runs, by name.
        initial: the checkpoint that they started from.
        rounds: of `jobs.train_method` for FOCUS.
        minutes: how long all of it took.
    """
    start = load_trained(initial)
    trained = {name: load_trained(runs / name / LAST) for name in training}
    renderer = Renderer(start.model, start.settings.image_size)
    batch = test_set(start, metrics["seed"]).batch(0, EXAMPLES, occluded=True)
    neutral = batch.neutral_vertices
    if neutral is None or batch.parameters is None:
        raise ValueError("demo: expected synthetic faces with ground truth")
    shown, meshes = [], [Mesh("true face", neutral[0], start.model.albedo(batch.parameters.albedo)[0])]
    for method in build_methods(start, trained):
        parameters = method.reconstruct(batch.image)
        rendering = renderer(parameters)
        values, errors = score(method, batch, renderer)
        captions = [
            f"{shape:.2f} mm, IoU {iou:.2f}"
            for shape, iou in zip(values["shape_error_mm"].tolist(), values["outlier_iou"].tolist(), strict=True)
        ]
        large = draw_large(start.model, parameters, start.settings.image_size)
        shown.append(Faces(method.name, large, rendering.mask, method.mask(batch, rendering), captions))
        if method.name in ("FOCUS", "MoFA"):
            found = start.model.neutral_shape(parameters.identity[:1])
            aligned = fit_similarity(found, neutral[:1]).apply(found)[0].float()
            meshes.append(Mesh(method.name, aligned, start.model.albedo(parameters.albedo)[0], errors[0]))
    held_out = shown_in_rounds(start.model, training["FOCUS"])
    order = [mesh.label for mesh in meshes]
    return DemoReport(
        metrics=metrics,
        findings=findings,
        test_faces=metrics["settings"]["test"]["faces"],
        round_photos=held_out.image,
        round_truth=_truth(held_out),
        rounds=rounds,
        photos=batch.image,
        truth=_truth(batch),
        methods=shown,
        scores=_scores(training, runs),
        losses=_losses(training, runs),
        viewer=viewer(start.model, meshes, shown=order.index("FOCUS")),
        machine=machine(),
        minutes=minutes,
    )


def _truth(batch: FaceBatch) -> Faces:
    """The faces of a synthetic batch without their occluders, and what is seen of them."""
    if batch.unoccluded is None or batch.face_mask is None or batch.visible_mask is None:
        raise ValueError("demo: expected synthetic faces with ground truth")
    picture = torch.cat([batch.unoccluded, batch.face_mask], dim=1)
    captions = [kind.replace("_", " ").replace("+", ", ") for kind in batch.occluder]
    return Faces("truth", picture, batch.face_mask, batch.visible_mask, captions)


def _scores(training: Mapping[str, Settings], runs: Path) -> dict[str, list[Curve]]:
    """Validation scores over the iterations of the reconstruction network."""
    titles = {
        "shape_error_mm": "Shape error on validation faces, mm",
        "appearance_rmse": "Appearance error on validation faces",
        "outlier_iou": "Outlier IoU on validation faces",
    }
    curves: dict[str, list[Curve]] = {title: [] for title in titles.values()}
    for name in ORDER:
        if name not in training:
            continue
        lines = [line for line in read_log(runs / name / "log.jsonl") if line["kind"] == "validation"]
        for key, title in titles.items():
            if name == "Oracle" and key == "outlier_iou":
                continue  # its mask is given
            points = [(own_iterations(training[name], line["step"]), line[key]) for line in lines if key in line]
            curves[title].append(Curve(name, points, name.lower()))
    return curves


def _losses(training: Mapping[str, Settings], runs: Path) -> dict[str, list[Curve]]:
    """Losses while training, each over the iterations of its network."""
    pixel = [
        Curve(
            name,
            [
                (own_iterations(training[name], line["step"]), line["pixel"])
                for line in read_log(runs / name / "log.jsonl")
                if line["kind"] == "joint/reconstruction" and "pixel" in line
            ],
            name.lower(),
        )
        for name in ORDER
        if name in training
    ]
    lines = [line for line in read_log(runs / "FOCUS" / "log.jsonl") if line["kind"] == "joint/segmentation"]
    terms = ("neighbor", "distance", "area", "preserve", "binary")
    segmentation = [
        Curve(
            term,
            [
                (own_iterations(training["FOCUS"], line["step"], "segmentation"), line[term])
                for line in lines
                if term in line
            ],
            f"series{number + 1}",
        )
        for number, term in enumerate(terms)
    ]
    return {
        "Photometric loss in training, over the trusted pixels": [curve for curve in pixel if curve.points],
        "Terms of the segmentation loss of FOCUS, unweighted": segmentation,
    }


def own_iterations(settings: Settings, step: int, network: str = "reconstruction") -> int:
    """How often a network has learnt when a run has done `step` iterations of both."""
    turns = plan(settings.stages, settings.method)
    return sum(min(max(step - turn.start, 0), turn.length) for turn in turns if turn.network == network)
