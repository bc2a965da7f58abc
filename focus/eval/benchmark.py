"""Methods against each other on synthetic faces, where the truth is known.

A method is a network that finds the face and a rule that finds its mask. All see the same pictures: every test face
once with an occluder in front of it and once without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focus import losses
from focus.data.batches import FaceBatch
from focus.data.skin import skin_mask
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.appearance import appearance_rmse
from focus.eval.masks import mask_scores, outlier_iou
from focus.eval.misfit import MisfitPrior
from focus.eval.shape import shape_error, summarise
from focus.face import FaceParameters, Renderer, Rendering
from focus.nets import SegmentationNetwork

TEST_SEED_OFFSET = 2**40
"""Test sets use the seeds from here on; those below are for training and validation."""

HALVES = ("occluded", "unoccluded", "overall")
IMAGE_VALUES = (
    "accuracy",
    "precision",
    "recall",
    "f1",
    "outlier_iou",
    "shape_error_mm",
    "appearance_rmse",
    "hard_accuracy",
    "hard_precision",
    "hard_recall",
    "hard_f1",
)
"""What is kept for every image; `shape_error_mm` is then the mean over its vertices, "hard" masks are thresholded at
one half.
"""

Reconstruct = Callable[[Tensor], FaceParameters]
"""``[B, 3, S, S]`` photos to faces; a `ReconstructionNetwork` is one."""

MaskRule = Callable[[FaceBatch, Rendering], Tensor]
"""A batch and its reconstruction to a mask ``[B, 1, S, S]`` in [0, 1]."""


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    name: str
    reconstruct: Reconstruct
    mask: MaskRule
    misfit: MisfitPrior | None = None
    """Taken off the neutral shapes; masks and pictures stay as they are."""


def whole_face(batch: FaceBatch, rendering: Rendering) -> Tensor:
    """The mask of a method that knows no occlusion: everything is face."""
    return rendering.mask


def robust_rule(sigma: float = losses.ROBUST_SIGMA, cutoff: float = losses.ROBUST_CUTOFF) -> MaskRule:
    """The mask of the initialisation: the inliers of the outlier-robust likelihood."""

    def rule(batch: FaceBatch, rendering: Rendering) -> Tensor:
        return losses.robust(batch.image, rendering.image, rendering.mask, sigma=sigma, cutoff=cutoff)[1]

    return rule


def skin_rule(batch: FaceBatch, rendering: Rendering) -> Tensor:
    """The mask of Deep3D: what has the colour of skin."""
    return skin_mask(batch.image) * rendering.mask


def true_mask(batch: FaceBatch, rendering: Rendering) -> Tensor:
    """The true mask, as Oracle is given it in training. Its mask scores are the best that can be had, by definition."""
    if batch.visible_mask is None:
        raise ValueError("true_mask: the batch has no visible_mask; only faces with ground truth can be scored with it")
    return batch.visible_mask


def network_mask(network: SegmentationNetwork) -> MaskRule:
    """The soft mask of a segmentation network."""

    def rule(batch: FaceBatch, rendering: Rendering) -> Tensor:
        mask: Tensor = network(rendering.image, batch.image, rendering.mask)
        return mask

    return rule


def mean_face(reconstruct: Reconstruct) -> Reconstruct:
    """The mean shape, expression and albedo in the pose and light that another method finds: what guessing nobody's
    face scores.
    """

    def average(images: Tensor) -> FaceParameters:
        found = reconstruct(images)
        return replace(
            found,
            identity=torch.zeros_like(found.identity),
            expression=torch.zeros_like(found.expression),
            albedo=torch.zeros_like(found.albedo),
        )

    return average


@dataclass(frozen=True)
class Evaluation:
    """The results of some methods on one test set of N pictures."""

    occluded: NDArray[np.bool_]
    """``[N]``."""
    names: tuple[str, ...]
    """``[N]``, of the pictures."""
    occluder: tuple[str, ...]
    """``[N]``, kind of what is in front of the face, several joined with "+", "none" where nothing is."""
    yaw: NDArray[np.float64]
    """``[N]`` degrees, of the true pose; positive as in `focus.face.camera`."""
    values: Mapping[str, Mapping[str, NDArray[np.float64]]]
    """Method -> one of `IMAGE_VALUES` -> ``[N]``."""
    vertex_errors: Mapping[str, NDArray[np.float32]]
    """Method -> ``[N, V]`` mm."""

    def metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The part "methods" of metrics.json: method -> half -> numbers.

        Mask scores, outlier IoU and appearance error are means over images (`f1_std` the standard deviation over
        them); the shape error is summarised over all vertices of all images.
        """
        return {method: {half: self._row(method, self._half(half)) for half in HALVES} for method in self.values}

    def per_image(self) -> dict[str, Any]:
        """What comparisons need, ready for JSON: what the pictures are, and the values of every method to six
        decimals.
        """
        return {
            "names": list(self.names),
            "occluded": self.occluded.tolist(),
            "occluder": list(self.occluder),
            "yaw": np.round(self.yaw, 3).tolist(),
            "methods": {
                m: {k: np.round(v, 6).tolist() for k, v in values.items()} for m, values in self.values.items()
            },
        }

    @staticmethod
    def cat(parts: Sequence[Evaluation]) -> Evaluation:
        """Joins the results of the same methods on parts of a test set."""
        first = parts[0]
        return Evaluation(
            occluded=np.concatenate([part.occluded for part in parts]),
            names=tuple(name for part in parts for name in part.names),
            occluder=tuple(kind for part in parts for kind in part.occluder),
            yaw=np.concatenate([part.yaw for part in parts]),
            values={
                method: {key: np.concatenate([part.values[method][key] for part in parts]) for key in rows}
                for method, rows in first.values.items()
            },
            vertex_errors={m: np.concatenate([part.vertex_errors[m] for part in parts]) for m in first.vertex_errors},
        )

    def _half(self, half: str) -> NDArray[np.bool_]:
        return {"occluded": self.occluded, "unoccluded": ~self.occluded, "overall": np.ones_like(self.occluded)}[half]

    def _row(self, method: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        values = {key: value[chosen] for key, value in self.values[method].items()}
        row: dict[str, Any] = {key: float(values[key].mean()) for key in ("accuracy", "precision", "recall", "f1")}
        row["f1_std"] = float(values["f1"].std())
        row["outlier_iou"] = float(values["outlier_iou"].mean())
        row["shape_error_mm"] = summarise(self.vertex_errors[method][chosen])
        row["appearance_rmse"] = float(values["appearance_rmse"].mean())
        return row


@torch.no_grad()
def evaluate(
    methods: Sequence[Method],
    faces: SyntheticFaces,
    count: int,
    *,
    first_index: int = 0,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Scores methods on faces `first_index` to `first_index + count - 1`, each with and without an occluder.

    Args:
        methods: with networks in evaluation mode, on `device`.
        faces: the test set. Its model is the one the methods reconstruct with: errors are taken vertex by vertex.
        count: number of faces; the result has twice as many pictures, the occluded ones first.
        first_index: of the faces.
        batch_size: pictures at a time.
        device: where the networks are.
        progress: called with (pictures done, pictures in all).
    """
    if count < 1 or not methods:
        raise FocusError(f"evaluate: expected at least one face and one method, got {count} and {len(methods)}")
    if len({method.name for method in methods}) != len(methods):
        raise FocusError(f"evaluate: expected methods of different names, got {', '.join(m.name for m in methods)}")
    renderer = Renderer(faces.model, faces.image_size).to(device)
    values: dict[str, dict[str, list[NDArray[np.float64]]]] = {
        m.name: {key: [] for key in IMAGE_VALUES} for m in methods
    }
    errors: dict[str, list[NDArray[np.float32]]] = {m.name: [] for m in methods}
    occluded: list[bool] = []
    names: list[str] = []
    kinds: list[str] = []
    yaws: list[NDArray[np.float64]] = []
    for half in (True, False):
        for start in range(0, count, batch_size):
            size = min(batch_size, count - start)
            batch = faces.batch(first_index + start, size, occluded=half).to(device)
            for method in methods:
                scores, vertex_errors = score(method, batch, renderer)
                for key, value in scores.items():
                    values[method.name][key].append(value.cpu().double().numpy())
                errors[method.name].append(vertex_errors.cpu().numpy())
            occluded += [half] * size
            names += batch.names
            kinds += batch.occluder
            if batch.parameters is None:
                raise ValueError("evaluate: expected faces whose pose is known")
            yaws.append(batch.parameters.rotation[:, 1].double().rad2deg().cpu().numpy())
            if progress is not None:
                progress(len(names), 2 * count)
    return Evaluation(
        occluded=np.array(occluded),
        names=tuple(names),
        occluder=tuple(kinds),
        yaw=np.concatenate(yaws),
        values={m: {key: np.concatenate(parts) for key, parts in rows.items()} for m, rows in values.items()},
        vertex_errors={m: np.concatenate(parts) for m, parts in errors.items()},
    )


def score(method: Method, batch: FaceBatch, renderer: Renderer) -> tuple[dict[str, Tensor], Tensor]:
    """`IMAGE_VALUES` of a batch with ground truth, ``[B]`` each, and the error of every vertex, ``[B, V]`` mm."""
    if (
        batch.visible_mask is None
        or batch.face_mask is None
        or batch.unoccluded is None
        or batch.neutral_vertices is None
    ):
        raise ValueError("score: expected a batch with ground truth: masks, unoccluded rendering and neutral shape")
    parameters = method.reconstruct(batch.image)
    rendering = renderer(parameters)
    mask = method.mask(batch, rendering)
    neutral = renderer.model.neutral_shape(parameters.identity)
    vertex_errors = shape_error(method.misfit.apply(neutral) if method.misfit else neutral, batch.neutral_vertices)
    values = mask_values(mask, batch.visible_mask, rendering.mask)
    values["shape_error_mm"] = vertex_errors.mean(dim=1)
    values["appearance_rmse"] = appearance_rmse(rendering.image, batch.unoccluded, batch.face_mask)
    return values, vertex_errors


def mask_values(mask: Tensor, visible: Tensor, counted: Tensor) -> dict[str, Tensor]:
    """Those of `IMAGE_VALUES` that a mask and the true one give, ``[B]`` each.

    Args:
        mask: ``[B, 1, H, W]`` in [0, 1].
        visible: ``[B, 1, H, W]`` in {0, 1}, the truth.
        counted: ``[B, 1, H, W]`` in {0, 1}, the pixels that count: the rendered face.
    """
    hard = mask_scores(mask, visible, counted, threshold=0.5)
    return {
        **mask_scores(mask, visible, counted)._asdict(),
        "outlier_iou": outlier_iou(mask, visible, counted),
        **{f"hard_{name}": value for name, value in hard._asdict().items()},
    }
