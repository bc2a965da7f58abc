"""What a teacher says of a photo: kept in files, and moved with the photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.data.align import Similarity
from focus.data.batches import FaceBatch
from focus.data.landmarks import MIRRORED_LANDMARKS
from focus.data.lessons import Lesson, MirroredModel, lessons_of, moved_face
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.face import Camera, FaceParameters, MorphableModel, Renderer
from focus.face.camera import angles_of, rotation_matrix
from focus.face.lighting import harmonics, turned_lighting

SIZE = 64
MODEL = MorphableModel.procedural("small").truncated(12, 6, 10)


@pytest.fixture(scope="module")
def face() -> FaceParameters:
    return SyntheticFaces(MODEL, SIZE, 3).parameters(5)


@pytest.fixture(scope="module")
def mirrored() -> MirroredModel:
    return MirroredModel(MODEL)


def _lesson(face: FaceParameters, **changes: object) -> Lesson:
    rng = np.random.default_rng(0)
    lesson = Lesson(
        crop=rng.integers(0, 256, (80, 80, 3), dtype=np.uint8),
        mask=rng.integers(0, 256, (80, 80), dtype=np.uint8),
        face=rng.random((80, 80)) < 0.5,
        parameters=face,
        weight=0.75,
        seen=0.5,
    )
    return replace(lesson, **changes)  # type: ignore[arg-type]


def test_angles_are_those_of_the_rotation() -> None:
    angles = torch.tensor([[0.3, -0.7, 0.2], [0.0, 0.0, 0.0], [-1.0, 1.2, 2.5]], dtype=torch.float64)
    assert torch.allclose(angles_of(rotation_matrix(angles)), angles, atol=1e-12)


def test_turned_light_lights_turned_normals_alike() -> None:
    lighting = torch.randn(2, 3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    normals = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=1)
    rotation = rotation_matrix(torch.tensor([[0.4, -0.2, 0.9]], dtype=torch.float64))[0]
    before = harmonics(normals) @ lighting.transpose(1, 2)
    after = harmonics(normals @ rotation.T) @ turned_lighting(lighting, rotation).transpose(1, 2)
    assert torch.allclose(before, after, atol=1e-12)


@pytest.mark.parametrize(
    ("similarity", "largest"),
    [
        (Similarity(), 1e-4),
        (Similarity(mirror=True), 0.2),
        (Similarity(angle=0.2), 1e-3),
        (Similarity(scale=1.08), 0.2),
        (Similarity(shift=(2.0, -1.5)), 0.2),
        (Similarity(0.1, 0.95, (1.0, 1.0), mirror=True), 0.3),
    ],
)
def test_a_moved_face_is_where_the_moved_picture_shows_it(
    face: FaceParameters, mirrored: MirroredModel, similarity: Similarity, largest: float
) -> None:
    renderer = Renderer(MODEL, SIZE)
    before, after = renderer(face), renderer(moved_face(face, similarity, mirrored, Camera(SIZE)))
    expected = similarity.points(before.landmarks[0].double().numpy(), SIZE)
    expected = expected[MIRRORED_LANDMARKS] if similarity.mirror else expected
    assert np.abs(after.landmarks[0].numpy() - expected).max() < largest
    picture = (before.image[0].permute(1, 2, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    moved = similarity.image(picture, SIZE)
    drawn = (after.image[0].permute(1, 2, 0).clamp(0, 1) * 255).numpy()
    inside = similarity.image(np.full((SIZE, SIZE), 255, np.uint8), SIZE) == 255
    inside &= torch.nn.functional.avg_pool2d(after.mask[0], 5, stride=1, padding=2)[0].numpy() > 0.999
    assert np.abs(moved - drawn)[inside].mean() < 4


def test_mirrored_twice_is_the_face(face: FaceParameters, mirrored: MirroredModel) -> None:
    again = mirrored(mirrored(face))
    for name, value in face.items():
        assert torch.allclose(getattr(again, name), value, atol=2e-2), name


def test_lessons_come_back_from_their_file(face: FaceParameters, tmp_path: Path) -> None:
    lesson = _lesson(face, doubt="inverted")
    lesson.save(tmp_path / "folder" / "a.safetensors")
    found = Lesson.load(tmp_path / "folder" / "a.safetensors", MODEL, 80)
    assert (found.weight, found.seen, found.doubt) == (0.75, 0.5, "inverted")
    assert np.array_equal(found.crop, lesson.crop)
    assert np.array_equal(found.mask, lesson.mask)
    assert np.array_equal(found.face, lesson.face)
    for name, value in face.items():
        assert torch.equal(getattr(found.parameters, name), value)


def test_what_is_no_lesson_is_refused(face: FaceParameters, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    _lesson(face).save(path)
    data = path.read_bytes()
    with pytest.raises(FocusError, match=r"crop: expected torch\.uint8"):
        Lesson.load(path, MODEL, 64)
    with pytest.raises(FocusError, match="identity: expected"):
        Lesson.load(path, MorphableModel.procedural("small"), 80)
    for damaged in (data[:-1], data[: len(data) // 2], b"", data[:-7] + bytes([data[-7] ^ 4]) + data[-6:]):
        path.write_bytes(damaged)
        with pytest.raises(FocusError, match=r"a.safetensors: no lesson that can be used"):
            Lesson.load(path, MODEL, 80)
    nothing = replace(face, identity=torch.full_like(face.identity, torch.nan))
    _lesson(nothing).save(path)
    with pytest.raises(FocusError, match="identity: expected finite numbers"):
        Lesson.load(path, MODEL, 80)
    _lesson(face, weight=2.0).save(path)
    with pytest.raises(FocusError, match="from 0 to 1"):
        Lesson.load(path, MODEL, 80)


def test_lessons_of_synthetic_faces_are_their_truth() -> None:
    batch = SyntheticFaces(MODEL, 32, 1).batch(0, 3)
    lessons = lessons_of(batch)
    assert torch.equal(lessons.mask, batch.visible_mask)
    assert bool((lessons.known == 1).all())
    assert batch.parameters is not None
    assert torch.equal(lessons.parameters.identity, batch.parameters.identity)
    whole = replace(batch, lessons=lessons)
    joined = FaceBatch.cat([whole[:1], whole[1:]]).lessons
    assert joined is not None
    assert torch.equal(joined.mask, lessons.mask)
    assert torch.equal(joined.parameters.albedo, lessons.parameters.albedo)
    with pytest.raises(FocusError, match="teacher: expected faces with lessons"):
        lessons_of(replace(batch, parameters=None))
