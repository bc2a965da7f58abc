"""The misfit prior."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.cli.evaluate.misfit import _stems
from focus.data.synthetic import SyntheticFaces, SyntheticSettings
from focus.errors import FocusError
from focus.eval.benchmark import Method, evaluate, whole_face
from focus.eval.misfit import MisfitPrior, estimate_misfit
from focus.eval.misfit_gain import Gain, vertex_gain
from focus.eval.statistics import paired_tests
from focus.face import FaceParameters, MorphableModel


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", 4, 2, 3)


def _faces(model: MorphableModel, seed: int) -> SyntheticFaces:
    return SyntheticFaces(model, 32, seed, SyntheticSettings(occluded_fraction=0.0))


class _Biased:
    """Knows every face of a set, but for a constant in its identity; asked in the order of the set."""

    def __init__(self, faces: SyntheticFaces, error: float) -> None:
        self.faces, self.error, self.next = faces, error, 0

    def __call__(self, images: torch.Tensor) -> FaceParameters:
        indices = range(self.next, self.next + len(images))
        self.next += len(images)
        true = FaceParameters.cat([self.faces.parameters(i) for i in indices])
        identity = true.identity.clone()
        identity[:, 0] += self.error
        return replace(true, identity=identity)


def test_a_constant_misfit_is_found_and_removed(model: MorphableModel) -> None:
    faces, others = _faces(model, 1), _faces(model, 2)
    prior = estimate_misfit(_Biased(faces, 1.0), faces, 12, source="biased", batch_size=5)
    assert (prior.faces, prior.seed, prior.model_fingerprint) == (12, 1, model.fingerprint())
    # The part of one component that no similarity takes up; how much it takes up differs a little from face to face.
    found = prior.offsets.norm(dim=1).mean()
    assert 0.3 * model.identity_basis[0].norm(dim=1).mean() < found < model.identity_basis[0].norm(dim=1).mean()
    biased = [Method("plain", _Biased(others, 1.0), whole_face), Method("MP", _Biased(others, 1.0), whole_face, prior)]
    result = evaluate(biased, others, 6, batch_size=6)
    plain, corrected = (result.vertex_errors[name][:6].mean() for name in ("plain", "MP"))
    assert corrected < 0.1 * plain


def test_a_method_without_error_has_no_misfit(model: MorphableModel) -> None:
    faces = _faces(model, 1)
    prior = estimate_misfit(_Biased(faces, 0.0), faces, 3, source="exact")
    assert prior.offsets.abs().max() < 1e-4


def _prior(model: MorphableModel) -> MisfitPrior:
    offsets = torch.randn(model.vertex_count, 3, generator=torch.Generator().manual_seed(0))
    return MisfitPrior(offsets, model.name, model.fingerprint(), 7, 3, "test")


def test_files_come_back_as_they_were(model: MorphableModel, tmp_path: Path) -> None:
    prior = _prior(model)
    path = prior.save(tmp_path / "new" / "misfit.safetensors")
    again = MisfitPrior.load(path)
    assert torch.equal(again.offsets, prior.offsets)
    assert replace(again, offsets=prior.offsets) == prior
    shape = model.mean_shape[None]
    assert torch.equal(again.apply(shape), shape - prior.offsets)


def test_what_is_no_misfit_prior_is_named(model: MorphableModel, tmp_path: Path) -> None:
    path = _prior(model).save(tmp_path / "misfit.safetensors")
    with pytest.raises(FocusError, match="estimated with the face model"):
        MisfitPrior.load(path).check_model(MorphableModel.procedural("small", 3, 2, 3))
    with pytest.raises(ValueError, match=r"expected \[B, \d+, 3\], got \[1, 5, 3\]"):
        _prior(model).apply(torch.zeros(1, 5, 3))
    content = path.read_bytes()
    for damaged in (content[:100], b"", content.replace(b"focus_misfit", b"focus_m1sfit"), b"PK" + content):
        path.write_bytes(damaged)
        with pytest.raises(FocusError, match="cannot be read"):
            MisfitPrior.load(path)
    with pytest.raises(FocusError, match="found none"):
        MisfitPrior.load(tmp_path / "other")
    nan = replace(_prior(model), offsets=torch.full((5, 3), math.nan)).save(path)
    with pytest.raises(FocusError, match="expected finite offsets"):
        MisfitPrior.load(nan)
    with pytest.raises(FocusError, match="at least one face"):
        estimate_misfit(_Biased(_faces(model, 1), 0.0), _faces(model, 1), 0, source="")


def test_gains_by_hand() -> None:
    pytest.importorskip("scipy")
    # Two faces of different numbers of vertices: means over faces, the summaries over all vertices.
    without = [np.array([1, 3], np.float32), np.array([2, 4, 6, 8], np.float32)]
    corrected = [np.array([1, 1], np.float32), np.array([2, 2, 2, 2], np.float32)]
    values = Gain.of(without, corrected).as_dict()
    assert (values["faces"], values["without_mm"], values["with_mm"], values["better"]) == (2, 3.5, 1.5, 1.0)
    assert values["without_vertices_mm"] == pytest.approx({"median": 3.5, "mean": 4.0, "std": math.sqrt(34 / 6)})
    assert values["with_vertices_mm"] == pytest.approx({"median": 2.0, "mean": 10 / 6, "std": math.sqrt(2 / 9)})


def test_a_gain_has_the_errors_of_the_benchmark(model: MorphableModel) -> None:
    pytest.importorskip("scipy")
    faces = _faces(model, 2)
    values = vertex_gain(_Biased(faces, 1.0), _prior(model), faces, 3).as_dict()
    result = evaluate([Method("plain", _Biased(faces, 1.0), whole_face)], faces, 3)
    expected = result.metrics()["plain"]["occluded"]["shape_error_mm"]
    assert values["without_vertices_mm"] == pytest.approx(expected, rel=1e-4)
    assert values["without_mm"] == pytest.approx(expected["mean"], rel=1e-4)
    assert values["with_vertices_mm"]["mean"] > values["without_vertices_mm"]["mean"]  # a prior of noise


def test_paired_tests_by_hand() -> None:
    pytest.importorskip("scipy")
    first = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    differences = np.array([0.1, 0.3, 0.2, 0.4, 0.5])
    found = paired_tests(first, first - differences)
    assert found.t == pytest.approx(0.3 / (differences.std(ddof=1) / math.sqrt(5)))
    assert found.t_p == pytest.approx(0.01324, abs=1e-4)  # two-sided, 4 degrees of freedom, t = 4.243
    assert found.wilcoxon_p == pytest.approx(2 / 2**5)  # all five signs alike
    mirrored = paired_tests(first - differences, first)
    assert (mirrored.t, mirrored.t_p) == (-found.t, found.t_p)
    assert paired_tests(first, first) == (0.0, 1.0, 1.0)
    assert paired_tests(first + 1, first).t_p == 0.0
    # Of the same difference in binary, but for the last bit.
    assert paired_tests(np.array([0.11, 0.21, 0.31]), np.array([0.1, 0.2, 0.3]))[:2] == (1e300, 0.0)
    with pytest.raises(ValueError, match="in pairs"):
        paired_tests(first, first[:4])


def test_files_of_names_that_look_alike_do_not_replace_each_other() -> None:
    assert _stems(["FOCUS run 1/a", "FOCUS run_1/a", "MoFA"]) == ["FOCUS_run_1_a", "FOCUS_run_1_a-2", "MoFA"]
