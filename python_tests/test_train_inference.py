"""What trained networks say: light that is solved again, disturbed faces, batches of photos and drawn faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from focus import losses
from focus.data import FaceBatch, SyntheticFaces
from focus.data.batches import mapped
from focus.data.lessons import lessons_of
from focus.data.synthetic import SyntheticSettings
from focus.errors import FocusError
from focus.face import Renderer
from focus.nets import FilterBank
from focus.train import Settings, SyntheticSource
from focus.train.capture import WARM_UP, Replays
from focus.train.checkpoint import Networks
from focus.train.config import FaceSettings
from focus.train.inference import relit, segmented
from focus.train.objectives import Objectives, disturbed
from focus.train.schedule import Network, Turn
from focus.train.sources import MixedSource

SIZE = 48
MODEL = FaceSettings(detail="small", identity=8, expression=4, albedo=6).build()


@pytest.fixture(scope="module")
def batch() -> FaceBatch:
    settings = SyntheticSettings(occluded_fraction=1.0, pigment=False, degradation=0.0, extreme_light_fraction=0.0)
    return SyntheticFaces(MODEL, SIZE, 5, settings).batch(0, 4)


def test_light_is_found_again_where_the_face_is_seen(batch: FaceBatch) -> None:
    true, seen = batch.parameters, batch.visible_mask
    assert true is not None
    assert seen is not None
    renderer = Renderer(MODEL, SIZE)
    wrong = replace(true, lighting=true.lighting * torch.tensor([0.6, 0.8, 1.3]).view(1, 3, 1))
    found = relit(batch.image, wrong, renderer(wrong), MODEL, seen)

    def difference(face: object) -> float:
        image = renderer(face).image  # type: ignore[arg-type]
        return float(((image - batch.image).abs() * seen).sum() / seen.sum())

    assert difference(found) < 0.2 * difference(wrong)
    some = relit(batch.image, wrong, renderer(wrong), MODEL, seen, every=2)
    assert torch.equal(some.lighting[::2], found.lighting[::2])
    assert torch.equal(some.lighting[1::2], wrong.lighting[1::2])


def test_faces_that_are_hardly_seen_keep_their_light(batch: FaceBatch) -> None:
    true = batch.parameters
    assert true is not None
    found = relit(batch.image, true, Renderer(MODEL, SIZE)(true), MODEL, torch.zeros(4, 1, SIZE, SIZE))
    assert torch.equal(found.lighting, true.lighting)


def test_masks_are_asked_for_once_more(batch: FaceBatch) -> None:
    torch.manual_seed(0)
    networks = Networks.build(Settings.preset("small"), MODEL).eval()
    renderer = Renderer(MODEL, SIZE)
    plain, drawn, logits = segmented(networks, MODEL, renderer, batch.image, relight=False)
    assert torch.equal(drawn.image, renderer(plain).image)
    pictures = (drawn.image, batch.image, drawn.mask)
    with torch.no_grad():
        said = networks.segmentation.logits(*pictures)
        of_mirror_images = networks.segmentation.logits(*(picture.flip(-1) for picture in pictures)).flip(-1)
    torch.testing.assert_close(logits, (said + of_mirror_images) / 2, rtol=1e-4, atol=1e-5)
    assert (said - of_mirror_images).abs().max() > 0.01
    lit, _, again = segmented(networks, MODEL, renderer, batch.image, relight=True)
    assert torch.equal(lit.rotation, plain.rotation)
    assert not torch.equal(lit.lighting, plain.lighting)
    assert not torch.equal(again, logits)


def test_disturbed_faces_differ_from_the_faces_and_from_each_other(batch: FaceBatch) -> None:
    face = batch.parameters
    assert face is not None
    assert disturbed(face, 0.0) is face
    torch.manual_seed(1)
    one = disturbed(face, 1.0)
    other = disturbed(face, 1.0)
    torch.manual_seed(1)
    same = disturbed(face, 1.0)
    for name, value in face.items():
        assert torch.equal(getattr(one, name), getattr(same, name)), name
        assert not torch.equal(getattr(one, name), getattr(other, name)), name
        assert not torch.equal(getattr(one, name), value), name
    assert float((one.translation - face.translation).abs().max()) < 100
    bounded = disturbed(face, 50.0, "unit_interval").expression
    assert 0 <= float(bounded.min()) <= float(bounded.max()) <= 1


def test_batches_hold_photos_and_drawn_faces() -> None:
    faces = SyntheticFaces(MODEL, SIZE, 9)

    class Photos:
        def batch(self, step: int) -> FaceBatch:
            drawn = faces.batch(1000 + 3 * step, 3)
            return FaceBatch(
                drawn.image, drawn.landmarks, drawn.landmark_weights, lessons=lessons_of(drawn), names=drawn.names
            )

    mixed = MixedSource(Photos(), SyntheticSource(faces, 1)).batch(2)
    assert mixed.image.shape[0] == 4
    assert mixed.lessons is not None
    assert torch.equal(mixed.image[3:], faces.batch(2, 1).image)
    assert torch.equal(mixed.lessons.mask[:3], Photos().batch(2).lessons.mask)  # type: ignore[union-attr]
    assert mixed.visible_mask is None, "of photos nothing true is known"
    assert mixed.names == [*Photos().batch(2).names, *faces.names(2, 1)]


@pytest.mark.parametrize("network", ["segmentation", "reconstruction"])
def test_lessons_hold_networks_that_teach_each_other(network: Network, batch: FaceBatch) -> None:
    face = FaceSettings(detail="small", identity=8, expression=4, albedo=6)
    base = replace(Settings.preset("small"), image_size=SIZE, face=face, teacher="truth")
    torch.manual_seed(0)
    networks = Networks.build(base, MODEL).eval()
    turn = Turn("joint", network, cycle=0, start=0, length=2, before=0, total=2, seen=0)
    values = []
    for settings in (base, replace(base, anchor=2.0), replace(base, anchor=2.0, teacher="none")):
        values.append(Objectives(settings, MODEL, networks, FilterBank()).of_turn(turn, 0, batch))
    (without, terms), (held, more), (alone, _) = values
    assert more.keys() - terms.keys() == {"lesson"}
    assert float(more["lesson"]) > 0
    torch.testing.assert_close(held - without, 2 * more["lesson"])
    assert torch.equal(alone, without), "without a teacher there is nothing to hold on to"


def test_cross_entropy_multiplies_the_odds_of_what_is_seen() -> None:
    expected = torch.tensor([0.25, 0.5, 0.9]).view(1, 1, 1, 3)
    logits = torch.log(3 * expected / (1 - expected)).requires_grad_()
    losses.mask_cross_entropy(logits, expected, torch.ones_like(expected), seen=3.0).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


class Replayed:
    """In place of a graph: its inputs and outputs stay where they are, and are written over."""

    made = 0

    def __init__(self, function: Any, inputs: Sequence[Tensor], device: torch.device) -> None:
        Replayed.made += 1
        self._function, self._inputs = function, [torch.clone(value) for value in inputs]
        self._output = function(*self._inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Any:
        for to, values in zip(self._inputs, inputs, strict=True):
            to.copy_(values)
        for to, values in zip(_tensors(self._output), _tensors(self._function(*self._inputs)), strict=True):
            to.copy_(values)
        return mapped(self._output, torch.clone)


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(value, lambda tensor: (found.append(tensor), tensor)[1])
    return found


def test_calls_alike_are_replayed(batch: FaceBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focus.train.capture._GraphOfCall", Replayed)
    torch.manual_seed(0)
    networks = Networks.build(Settings.preset("small"), MODEL).eval()
    renderer, call = Renderer(MODEL, SIZE), Replays(torch.device("cuda", 0))
    kept = []
    for number in range(2 * WARM_UP):
        images = batch.image.roll(number, -1)
        found = segmented(networks, MODEL, renderer, images, relight=True, call=call)
        kept.append((found, segmented(networks, MODEL, renderer, images, relight=True)))
    # Of the faces, of their masks, and of these and their mirror images.
    assert Replayed.made == 3
    for found, expected in kept:  # nothing was written over since
        for one, other in zip(_tensors(found), _tensors(expected), strict=True):
            assert torch.equal(one, other)
    segmented(networks, MODEL, renderer, batch.image[:1], relight=False, call=call)
    assert Replayed.made == 3


def test_what_cannot_be_captured_is_told(batch: FaceBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr("focus.train.capture._GraphOfCall", refuse)
    call = Replays(torch.device("cuda", 0))
    for _ in range(WARM_UP):
        assert torch.equal(call("sum", torch.sum, batch.image), batch.image.sum())
    with pytest.raises(FocusError, match=r"cannot be captured \(operation not permitted when stream is capturing\)"):
        call("sum", torch.sum, batch.image)
