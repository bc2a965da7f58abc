"""The benchmark on a few small faces: a method that knows the truth, the mean face, and what is written about them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from focus.data import SyntheticFaces, SyntheticSettings
from focus.eval import Evaluation, Method, evaluate
from focus.eval.benchmark import HALVES, IMAGE_VALUES, mean_face, robust_rule, true_mask, whole_face
from focus.face import FaceParameters, MorphableModel, Renderer

COUNT, SIZE = 3, 32


@pytest.fixture(scope="module")
def faces() -> SyntheticFaces:
    model = MorphableModel.procedural("small", 4, 2, 4)
    # A perfect camera and clean skin: the true parameters then explain every pixel.
    settings = SyntheticSettings(degradation=0.0, pigment=False)
    return SyntheticFaces(model, SIZE, seed=1, settings=settings)


class Clairvoyant:
    """Knows the face of every picture of the test set."""

    def __init__(self, faces: SyntheticFaces) -> None:
        self.known: dict[bytes, FaceParameters] = {}
        for occluded in (True, False):
            batch = faces.batch(0, COUNT, occluded=occluded)
            assert batch.parameters is not None
            for i, image in enumerate(batch.image):
                self.known[image.numpy().tobytes()] = batch.parameters[i]

    def __call__(self, images: Tensor) -> FaceParameters:
        return FaceParameters.cat([self.known[image.numpy().tobytes()] for image in images])


@pytest.fixture(scope="module")
def knows(faces: SyntheticFaces) -> Clairvoyant:
    return Clairvoyant(faces)


@pytest.fixture(scope="module")
def result(faces: SyntheticFaces, knows: Clairvoyant) -> Evaluation:
    methods = [
        Method("Truth", knows, true_mask),
        Method("MeanFace", mean_face(knows), whole_face),
        Method("Rule", knows, robust_rule()),
    ]
    return evaluate(methods, faces, COUNT, batch_size=2)


def test_the_truth_scores_as_it_should(result: Evaluation) -> None:
    for half, row in result.metrics()["Truth"].items():
        assert row["accuracy"] > 0.98, half
        assert row["f1"] > 0.98
        assert row["outlier_iou"] == 1
        assert row["shape_error_mm"]["mean"] < 1e-3
        assert row["appearance_rmse"] < 0.01  # 8 bits of colour


def test_the_mean_face_pays_in_shape_and_colour_and_finds_no_outlier(result: Evaluation) -> None:
    row = result.metrics()["MeanFace"]["occluded"]
    assert row["shape_error_mm"]["median"] > 0.5
    assert row["appearance_rmse"] > 0.02
    assert row["recall"] > 0.98
    assert row["outlier_iou"] == 0


def test_the_robust_rule_finds_occluders_of_other_colours(result: Evaluation) -> None:
    row = result.metrics()["Rule"]
    assert row["occluded"]["outlier_iou"] > 0.5
    assert (
        row["unoccluded"]["accuracy"] > 0.9
    )  # light beyond white is cut off in the picture, and looks like an outlier


def test_metrics_have_the_promised_keys_and_plain_numbers(result: Evaluation) -> None:
    metrics = json.loads(json.dumps(result.metrics(), allow_nan=False))
    assert list(metrics) == ["Truth", "MeanFace", "Rule"]
    for rows in metrics.values():
        assert set(rows) == set(HALVES) == {"occluded", "unoccluded", "overall"}
        for row in rows.values():
            shape = row.pop("shape_error_mm")
            assert set(shape) == {"median", "mean", "std"}
            assert set(row) == {
                "accuracy", "precision", "recall", "f1", "f1_std", "outlier_iou", "appearance_rmse"
            }  # fmt: skip
            assert all(isinstance(value, float) for value in (*row.values(), *shape.values()))


def test_halves_are_means_over_their_pictures(result: Evaluation) -> None:
    values, metrics = result.values["MeanFace"], result.metrics()["MeanFace"]
    assert result.occluded.tolist() == [True] * COUNT + [False] * COUNT
    assert metrics["occluded"]["f1"] == pytest.approx(values["f1"][:COUNT].mean())
    assert metrics["unoccluded"]["f1_std"] == pytest.approx(values["f1"][COUNT:].std())
    both = (metrics["occluded"]["appearance_rmse"] + metrics["unoccluded"]["appearance_rmse"]) / 2
    assert metrics["overall"]["appearance_rmse"] == pytest.approx(both)
    assert metrics["overall"]["shape_error_mm"]["mean"] == pytest.approx(values["shape_error_mm"].mean(), rel=1e-5)


def test_the_same_face_comes_with_and_without_an_occluder(result: Evaluation) -> None:
    assert result.names[:COUNT] == result.names[COUNT:]


def test_parts_of_a_test_set_join_to_the_whole(faces: SyntheticFaces, knows: Clairvoyant, result: Evaluation) -> None:
    method = [Method("MeanFace", mean_face(knows), whole_face)]
    done: list[tuple[int, int]] = []
    parts = [
        evaluate(method, faces, 1, progress=lambda *state: done.append(state)),
        evaluate(method, faces, COUNT - 1, first_index=1),
    ]
    joined = Evaluation.cat(parts)
    assert done == [(1, 2), (2, 2)]
    assert joined.occluded.tolist() == [True, False, *[True] * (COUNT - 1), *[False] * (COUNT - 1)]
    for half in HALVES:
        one, whole = joined.metrics()["MeanFace"][half], result.metrics()["MeanFace"][half]
        assert one["f1"] == pytest.approx(whole["f1"], abs=1e-6)
        assert one["shape_error_mm"] == pytest.approx(whole["shape_error_mm"], abs=1e-4)


def test_values_of_pictures_are_kept(result: Evaluation) -> None:
    kept = json.loads(json.dumps(result.per_image(), allow_nan=False))
    assert len(kept["names"]) == len(kept["occluded"]) == 2 * COUNT
    assert set(kept["methods"]["Truth"]) == set(IMAGE_VALUES)
    np.testing.assert_allclose(kept["methods"]["Rule"]["f1"], result.values["Rule"]["f1"], atol=1e-6)


def test_the_mean_face_keeps_pose_and_light(faces: SyntheticFaces, knows: Clairvoyant) -> None:
    batch = faces.batch(0, 2, occluded=False)
    assert batch.parameters is not None
    found = mean_face(knows)(batch.image)
    assert found.identity.abs().sum() == found.albedo.abs().sum() == found.expression.abs().sum() == 0
    torch.testing.assert_close(found.rotation, batch.parameters.rotation)
    torch.testing.assert_close(found.lighting, batch.parameters.lighting)


def test_faces_without_truth_are_refused(faces: SyntheticFaces) -> None:
    batch = faces.batch(0, 1)
    batch.visible_mask = None
    rendering = Renderer(faces.model, SIZE)(FaceParameters.mean(faces.model))
    with pytest.raises(ValueError, match="visible_mask"):
        true_mask(batch, rendering)
    with pytest.raises(ValueError, match="at least one face"):
        evaluate([], faces, 1)
