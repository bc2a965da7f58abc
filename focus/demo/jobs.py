"""What the processes of the demo do: train one method, or score all of them on a part of the test set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from focus import parallel
from focus.data.batches import FaceBatch
from focus.data.synthetic import SyntheticFaces
from focus.eval.benchmark import (
    TEST_SEED_OFFSET,
    Evaluation,
    Method,
    evaluate,
)
from focus.experiment.training import mean_face_of, method_of, train_run
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.report.demo_page import Faces
from focus.train.checkpoint import Trained, load_trained
from focus.train.config import Settings
from focus.train.distributed import pick_device
from focus.train.methods import Method as TrainingMethod
from focus.train.run import VALIDATION_SEED_OFFSET
from focus.train.schedule import Turn
from focus.train.trainer import Trainer

TRAINED: dict[str, TrainingMethod] = {"FOCUS": "focus", "MoFA": "mofa", "Pretrained": "pretrained", "Oracle": "oracle"}
"""Name in the table -> method of the trainer; in the order in which training starts, the longest first."""
ORDER = ("MeanFace", "MoFA", "Pretrained", "FOCUS", "Oracle")
"""Rows of the table."""
ROUND_EXAMPLES = 4
"""Validation faces that the report shows after every round."""


def train_method(report: parallel.Report, settings: Settings, folder: Path) -> list[Faces]:
    """Trains one method; of FOCUS, returns how some validation faces looked after every round."""
    model = settings.face.build()
    rounds: list[Faces] = []
    batch = shown_in_rounds(model, settings).to(pick_device(settings.device))

    def after_turn(trainer: Trainer, turn: Turn) -> None:
        if turn.stage == "segmentation" or (turn.stage == "joint" and turn.network == "reconstruction"):
            found = trainer.predict(batch)
            label = "Before" if turn.stage == "segmentation" else f"Round {turn.cycle + 1}"
            large = draw_large(trainer.model, found.parameters, settings.image_size)
            rounds.append(Faces(label, large, found.rendering.mask.cpu(), found.mask.cpu()))

    train_run(report, settings, folder, after_turn=after_turn if settings.method == "focus" else None)
    return rounds


def score_methods(
    report: parallel.Report, initial: Path, checkpoints: Mapping[str, Path], seed: int, first_index: int, count: int
) -> Evaluation:
    """Scores all methods on a part of the test set."""
    start = load_trained(initial)
    methods = build_methods(start, {name: load_trained(path) for name, path in checkpoints.items()})
    faces = test_set(start, seed)
    return evaluate(
        methods, faces, count, first_index=first_index, progress=lambda done, total: report((done, total, ""))
    )


def build_methods(start: Trained, trained: Mapping[str, Trained]) -> list[Method]:
    """The rows of the table.

    Args:
        start: the initial network, which gives the pose and light of MeanFace.
        trained: name -> networks; names without networks are left out.
    """
    methods = {"MeanFace": mean_face_of(start)}
    for name, result in trained.items():
        methods[name] = method_of(result, name)
    return [methods[name] for name in ORDER if name in methods]


def shown_in_rounds(model: MorphableModel, settings: Settings) -> FaceBatch:
    """The validation faces that the report shows after every round: the first ones, each with an occluder."""
    seed = settings.seed + VALIDATION_SEED_OFFSET
    faces = SyntheticFaces(model, settings.image_size, seed, settings.data.synthetic)
    return faces.batch(0, ROUND_EXAMPLES, occluded=True)


def test_set(trained: Trained, seed: int) -> SyntheticFaces:
    """The test faces of a seed, in the model and image size of a network."""
    settings = trained.settings
    return SyntheticFaces(trained.model, settings.image_size, TEST_SEED_OFFSET + seed, settings.data.synthetic)


def draw_large(model: MorphableModel, parameters: FaceParameters, image_size: int) -> Tensor:
    """Faces for people, at twice the resolution of the networks: ``[B, 4, 2 S, 2 S]`` on the CPU, RGB and mask."""
    with torch.no_grad():
        rendering = Renderer(model, 2 * image_size)(parameters)
    return torch.cat([rendering.image, rendering.mask], dim=1).cpu()
