"""Some test faces as the pipelines see them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from focus.eval.testset import benchmark_faces
from focus.experiment.runs import Run, TestSettings, scored_method
from focus.face import Renderer
from focus.report.experiment import Examples, Seen
from focus.train.checkpoint import load_trained


@torch.no_grad()
def example_pictures(runs: Mapping[str, Run], test: TestSettings, *, count: int) -> Examples:
    """The first faces of the test set, each with its occluder.

    Args:
        runs: name -> trained run.
        test: which test set.
        count: number of faces.
    """
    first = load_trained(next(iter(runs.values())).checkpoint)
    batch = benchmark_faces(first.model, first.settings.image_size, test.subset).batch(0, count, occluded=True)
    if batch.visible_mask is None or batch.face_mask is None or batch.unoccluded is None:
        raise ValueError("example_pictures: expected faces with ground truth")
    renderer = Renderer(first.model, first.settings.image_size)
    seen = {}
    for name, run in runs.items():
        method = scored_method(run, load_trained(run.checkpoint), name)
        rendering = renderer(method.reconstruct(batch.image))
        seen[name] = Seen(rendering.image, rendering.mask, method.mask(batch, rendering))
    return Examples(batch.image, batch.face_mask, batch.visible_mask, batch.unoccluded, seen)
