"""Mask scores, shape error and appearance error against cases computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from focus.eval.appearance import appearance_rmse
from focus.eval.masks import mask_scores, outlier_iou
from focus.eval.shape import fit_similarity, shape_error, summarise


def masks(*rows: str) -> Tensor:
    """[1, 1, H, W] from digits: tenths, with # for 1."""
    return torch.tensor([[[[1.0 if c == "#" else int(c) / 10 for c in row] for row in rows]]])


RENDERED = masks("####0", "####0")
VISIBLE = masks("###00", "##00#")  # outliers inside the render: columns 3 of both rows and 2 of the second


def test_soft_scores_by_hand() -> None:
    predicted = masks("##5##", "#555#")  # the last column is outside the rendered face
    tp, fn = 2 + 0.5 + 1 + 0.5, 0.5 + 0.5
    fp, tn = 1 + 0.5 + 0.5, max(0.5 + 0.5, 1)
    scores = mask_scores(predicted, VISIBLE, RENDERED)
    assert scores.accuracy.item() == pytest.approx((tp + tn) / (tp + tn + fp + fn))
    assert scores.precision.item() == pytest.approx(tp / (tp + fp))
    assert scores.recall.item() == pytest.approx(tp / (tp + fn))
    assert scores.f1.item() == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_threshold_comes_before_the_areas() -> None:
    scores = mask_scores(masks("##5##", "#441#"), VISIBLE, RENDERED, threshold=0.5)
    # TP 4, FN 1, FP 1, TN 2
    assert [round(s.item(), 9) for s in scores] == [round(v, 9) for v in (6 / 8, 4 / 5, 4 / 5, 8 / 10)]


def test_each_area_is_at_least_one_pixel() -> None:
    nothing = torch.zeros(1, 1, 2, 5)
    assert [s.item() for s in mask_scores(nothing, nothing, nothing)] == [0.5, 0.5, 0.5, 0.5]
    perfect = mask_scores(VISIBLE, VISIBLE, RENDERED)
    assert perfect.precision.item() == pytest.approx(5 / 6)


def test_all_face_scores_well_in_f1_and_finds_no_outlier() -> None:
    rendered = torch.ones(1, 1, 20, 20)
    visible = rendered.clone()
    visible[..., :6] = 0  # 30% hidden
    scores = mask_scores(rendered, visible, rendered)
    assert scores.f1.item() == pytest.approx(2 * 280 / (2 * 280 + 120 + 1))
    assert scores.f1.item() > 0.8
    assert scores.recall.item() == pytest.approx(280 / 281)
    assert outlier_iou(rendered, visible, rendered).item() == 0


def test_outlier_iou_by_hand() -> None:
    assert outlier_iou(masks("###5#", "##5##"), VISIBLE, RENDERED).item() == 0  # 0.5 says face
    assert outlier_iou(masks("#4#0#", "##00#"), VISIBLE, RENDERED).item() == pytest.approx(3 / 4)
    assert outlier_iou(VISIBLE, VISIBLE, RENDERED).item() == 1


def test_outlier_iou_of_an_empty_union_is_one_and_a_false_outlier_makes_it_zero() -> None:
    assert outlier_iou(RENDERED, RENDERED, RENDERED).item() == 1
    assert outlier_iou(masks("####0", "###00"), RENDERED, RENDERED).item() == 0
    nothing = torch.zeros_like(RENDERED)  # a reconstruction that shows no face is no answer
    assert outlier_iou(nothing, RENDERED, nothing).item() == 0
    assert outlier_iou(RENDERED, nothing, nothing).item() == 0


def test_images_of_a_batch_are_scored_alone() -> None:
    predicted = torch.cat([masks("##5##", "#555#"), VISIBLE])
    visible, rendered = VISIBLE.expand(2, -1, -1, -1), RENDERED.expand(2, -1, -1, -1)
    batch = mask_scores(predicted, visible, rendered)
    alone = mask_scores(predicted[:1], VISIBLE, RENDERED)
    assert [b[0].item() for b in batch] == [a.item() for a in alone]


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="predicted, visible, rendered"):
        mask_scores(VISIBLE[0], VISIBLE[0], RENDERED[0])
    with pytest.raises(ValueError, match="outlier_iou"):
        outlier_iou(VISIBLE[..., :3], VISIBLE, RENDERED)


def rotation(angle: float, axis: int) -> Tensor:
    c, s = math.cos(angle), math.sin(angle)
    plane = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    matrix = torch.eye(3, dtype=torch.float64)
    keep = [i for i in range(3) if i != axis]
    matrix[torch.tensor(keep)[:, None], torch.tensor(keep)] = plane
    return matrix


def test_shape_error_ignores_size_pose_and_place() -> None:
    true = torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 50
    turn = rotation(2.5, 0) @ rotation(-1.0, 1) @ rotation(0.7, 2)
    moved = 1.3 * true @ turn.T + torch.tensor([10.0, -400.0, 900.0])
    assert shape_error(moved, true).max().item() < 1e-4
    found = fit_similarity(moved, true)
    torch.testing.assert_close(found.scale, torch.full((3,), 1 / 1.3, dtype=torch.float64))
    torch.testing.assert_close(found.rotation, turn.T.expand(3, 3, 3))


def test_shape_error_does_not_ignore_a_mirror_image() -> None:
    true = torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(1)) * 50
    found = fit_similarity(true * torch.tensor([-1.0, 1.0, 1.0]), true)
    assert torch.linalg.det(found.rotation).item() == pytest.approx(1)
    assert shape_error(true * torch.tensor([-1.0, 1.0, 1.0]), true).mean().item() > 5


def test_shape_error_of_a_dented_sphere_by_hand() -> None:
    # 6 axis points at 100 mm, the pair on x pulled out by 1 mm: the best scale is a = sum(x y) / sum(x x) for the
    # estimate x.
    true = 100 * torch.cat([torch.eye(3), -torch.eye(3)])[None].double()
    estimated = true.clone()
    estimated[:, [0, 3], 0] *= 1.01
    scale = (2 * 101 * 100 + 4 * 100 * 100) / (2 * 101**2 + 4 * 100**2)
    expected = torch.tensor([abs(101 * scale - 100), *[abs(100 * scale - 100)] * 2] * 2)
    torch.testing.assert_close(shape_error(estimated, true)[0], expected, atol=1e-5, rtol=0)


def test_a_sphere_one_millimetre_larger_has_no_shape_error() -> None:
    direction = torch.nn.functional.normalize(
        torch.randn(1, 200, 3, generator=torch.Generator().manual_seed(2)).double(), dim=2
    )
    assert shape_error(101 * direction, 100 * direction).max().item() < 1e-4


def test_shape_error_refuses_what_has_no_shape() -> None:
    with pytest.raises(ValueError, match="coincide"):
        shape_error(torch.ones(1, 5, 3), torch.randn(1, 5, 3))
    with pytest.raises(ValueError, match="source"):
        shape_error(torch.ones(1, 5, 3), torch.ones(1, 6, 3))


def test_summary_is_over_all_vertices_of_all_images() -> None:
    errors = np.array([[0.0, 1.0], [1.0, 6.0]], dtype=np.float32)
    assert summarise(errors) == pytest.approx({"median": 1.0, "mean": 2.0, "std": math.sqrt(5.5)})
    with pytest.raises(ValueError, match="at least one"):
        summarise(errors[:0])


def test_appearance_error_by_hand() -> None:
    true = torch.full((1, 3, 1, 4), 0.5)
    found = true.clone()
    found[..., 0] = 0.8  # wrong inside the face
    found[..., 1] = 7.0  # clamped to 1
    found[..., 3] = 0.0  # outside the true face: does not count
    face = torch.tensor([[[[1.0, 1.0, 1.0, 0.0]]]])
    expected = math.sqrt((0.3**2 + 0.5**2) / 3)
    assert appearance_rmse(found, true, face).item() == pytest.approx(expected, abs=1e-6)
    assert appearance_rmse(found, true, torch.zeros_like(face)).item() == 0


def test_appearance_error_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="appearance_rmse"):
        appearance_rmse(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
