"""Reconstructions and their files, and the networks that make them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageFilter

from focus import Reconstruction, Reconstructor, ops
from focus.data.align import Alignment
from focus.data.skin import skin_mask
from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.lighting import directional_lighting
from focus.fit.region import crop_model, face_region
from focus.reconstruction import RESULT_SUFFIXES
from focus.report.files import write_together
from focus.report.meshes import encode_meshes
from focus.report.overlay import draw_overlay
from focus.train import Header, Networks, Settings, save_checkpoint
from focus.train.config import StageSettings

SIZE = 64


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.procedural("small", identity=5, expression=4, albedo=3)


def reconstruct(model: MorphableModel) -> Reconstruction:
    """A turned face in a photo of 150 x 120, its crop about half as large; something hides its upper third."""
    parameters = FaceParameters.mean(model)
    generator = torch.Generator().manual_seed(2)
    parameters.identity[:] = torch.randn(1, model.identity_count, generator=generator)
    parameters.rotation[:] = torch.tensor([0.1, 0.3, -0.2])
    parameters.translation[:] = torch.tensor([1.0, 2.0, 100.0])
    rendering = Renderer(model, SIZE)(parameters)
    visible = torch.ones(1, SIZE, SIZE)
    visible[:, :24] = 0
    photo = np.random.default_rng(0).integers(0, 255, (120, 150, 3), dtype=np.uint8)
    return Reconstruction(
        model=model,
        parameters=parameters,
        image=torch.rand(3, SIZE, SIZE, generator=generator),
        rendering=rendering.image[0],
        face=rendering.mask[0],
        mask=rendering.mask[0] * visible,
        alignment=Alignment(0.55, (80.0, 60.0), SIZE),
        photo=photo,
        name="some face.jpg",
    )


@pytest.fixture(scope="module")
def reconstruction(model: MorphableModel) -> Reconstruction:
    return reconstruct(model)


def test_properties(model: MorphableModel, reconstruction: Reconstruction) -> None:
    parameters = reconstruction.parameters
    torch.testing.assert_close(reconstruction.vertices, model.shape(parameters.identity, parameters.expression)[0])
    assert reconstruction.colors.min() >= 0
    assert reconstruction.colors.max() <= 1
    hidden = float(1 - reconstruction.mask.sum() / reconstruction.face.sum())
    assert reconstruction.occluded_fraction == pytest.approx(hidden)
    assert 0.1 < hidden < 0.6
    empty = replace(reconstruction, face=torch.zeros(1, SIZE, SIZE), mask=torch.zeros(1, SIZE, SIZE))
    assert empty.occluded_fraction == 1
    np.testing.assert_allclose(reconstruction.pose["rotation_degrees"], np.rad2deg([0.1, 0.3, -0.2]), rtol=1e-5)
    np.testing.assert_allclose(reconstruction.pose["translation_mm"], [1, 2, 1100], rtol=1e-6)


def test_landmarks_are_in_the_photo(model: MorphableModel, reconstruction: Reconstruction) -> None:
    rendered = Renderer(model, SIZE)(reconstruction.parameters).landmarks[0].double().numpy()
    expected = reconstruction.alignment.to_photo(rendered)
    np.testing.assert_allclose(reconstruction.landmarks_68[17:], expected[17:], atol=1e-3)
    nose = reconstruction.landmarks_68[30]
    assert 40 < nose[0] < 150
    assert 20 < nose[1] < 100


def test_render_at_any_size(reconstruction: Reconstruction) -> None:
    image, mask = reconstruction.render(SIZE)
    torch.testing.assert_close(image, reconstruction.rendering)
    assert torch.equal(mask, reconstruction.face)
    _, large = reconstruction.render(2 * SIZE)
    assert float(large.mean()) == pytest.approx(float(mask.mean()), rel=0.03)
    half = replace(reconstruction, region=reconstruction.model.mean_shape[:, 0] > 0)
    assert 0.2 < float(half.render(SIZE)[1].sum() / mask.sum()) < 0.5


def test_saves_everything(model: MorphableModel, reconstruction: Reconstruction, tmp_path: Path) -> None:
    files = reconstruction.save(tmp_path / "new" / "folder")
    assert [file.name for file in files] == [f"some face{suffix}" for suffix in RESULT_SUFFIXES]
    assert sorted(files) == sorted((tmp_path / "new" / "folder").iterdir())
    mask = np.asarray(Image.open(files[3]))
    assert mask.shape == (120, 150)
    assert np.isin(mask, [0, 255]).mean() > 0.9
    area = float(reconstruction.mask.sum()) / 0.55**2
    assert (mask > 127).sum() == pytest.approx(area, rel=0.03)
    overlay = np.asarray(Image.open(files[4]))
    assert overlay.shape == (120, 4 * 150 + 3 * 8, 3)
    assert np.array_equal(overlay[:, :150], reconstruction.photo)
    drawn = Image.fromarray(reconstruction.alignment.to_photo_image(reconstruction.face[0].numpy(), (120, 150)) > 0)
    outside = ~np.asarray(drawn.convert("L").filter(ImageFilter.MaxFilter(5)), bool)
    assert np.array_equal(overlay[:, 158:308][outside], reconstruction.photo[outside])
    assert not np.array_equal(overlay[:, 158:308], reconstruction.photo)
    again = reconstruction.save(tmp_path / "new" / "folder")
    assert again == files
    assert reconstruction.save(tmp_path, stem="other")[0].name == "other.ply"


def test_overlay_of_a_ragged_border_shows_no_specks(reconstruction: Reconstruction) -> None:
    """A light, evenly lit face on a white photo, nothing hidden: nothing in the overlay is dark or tinted."""
    model = reconstruction.model
    light = model._replaced(
        mean_albedo=torch.full_like(model.mean_albedo, 0.8), albedo_basis=torch.zeros_like(model.albedo_basis)
    )
    lighting = directional_lighting(torch.tensor([[0.0, 0.0, -1.0]]), torch.zeros(1, 3), torch.ones(1, 3))
    generator = torch.Generator().manual_seed(0)
    ragged = 12 * torch.rand(model.vertex_count, generator=generator)  # mm, from vertex to vertex
    cut = replace(
        reconstruction,
        model=light,
        parameters=replace(reconstruction.parameters, lighting=lighting),
        photo=np.full_like(reconstruction.photo, 255),
        region=model.mean_shape[:, 1] < 60 - ragged,
    )
    _, face = cut.render(SIZE)
    overlay = draw_overlay(replace(cut, face=face, mask=face))
    assert overlay[:, 158:308].min() == pytest.approx(0.8 * 255, abs=3)
    assert overlay[:, 474:].min() >= 252


def test_json(model: MorphableModel, reconstruction: Reconstruction, tmp_path: Path) -> None:
    content = json.loads(reconstruction.save(tmp_path)[-1].read_text())
    assert set(content) == {
        *("format", "version", "photo", "photo_size", "model", "model_fingerprint", "landmarks_68", "pose", "camera"),
        *("lighting", "coefficients", "occluded_fraction", "alignment", "files", "made_from", "fitted_with"),
    }
    assert content["made_from"] is None
    assert content["fitted_with"] == []
    for suffix, digest in content["files"].items():
        assert hashlib.sha256((tmp_path / f"some face{suffix}").read_bytes()).hexdigest() == digest
    assert [*content["files"], ".json"] == list(RESULT_SUFFIXES)
    np.testing.assert_allclose(content["landmarks_68"], reconstruction.landmarks_68)
    assert np.shape(content["landmarks_68"]) == (68, 2)
    assert np.shape(content["lighting"]) == (3, 9)
    assert {name: len(values) for name, values in content["coefficients"].items()} == {
        "identity": 5,
        "expression": 4,
        "albedo": 3,
    }
    assert content["model"] == model.name
    assert content["model_fingerprint"] == model.fingerprint()
    assert content["photo_size"] == {"height": 120, "width": 150}
    assert content["alignment"] == {"scale": 0.55, "center": [80.0, 60.0], "image_size": SIZE}
    # The numbers are enough to make the mesh again.
    identity = torch.tensor([content["coefficients"]["identity"]])
    expression = torch.tensor([content["coefficients"]["expression"]])
    torch.testing.assert_close(model.shape(identity, expression)[0], reconstruction.vertices)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_mesh_round_trip(model: MorphableModel, reconstruction: Reconstruction, suffix: str) -> None:
    colors = reconstruction.colors.numpy()
    contents = encode_meshes(reconstruction.vertices.numpy(), model.faces.numpy(), colors)[suffix]
    options = {"skip_materials": True} if suffix == ".glb" else {}  # else trimesh looks for colours in a texture
    mesh = trimesh.load(io.BytesIO(contents), file_type=suffix[1:], force="mesh", process=False, **options)
    scale = 1e-3 if suffix == ".glb" else 1.0
    np.testing.assert_allclose(mesh.vertices, scale * reconstruction.vertices.numpy(), atol=2e-4 * scale)
    assert np.array_equal(mesh.faces, model.faces.numpy())
    seen = mesh.visual.vertex_colors[:, :3].astype(float) / 255
    if suffix == ".glb":
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(seen, colors, atol=0.5 / 255 if suffix != ".glb" else 0.03)
    # Outward normals: the nose looks along +z, the chin is below the brows.
    nose, chin, brow = (int(model.landmarks68[index]) for index in (30, 8, 24))
    assert mesh.vertex_normals[nose, 2] > 0.5
    assert mesh.vertices[chin, 1] < mesh.vertices[brow, 1]


def read_glb(contents: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The tree of a GLB file, and the attributes of its mesh; not by trimesh, which wrote it."""
    magic, version, total, length, kind = struct.unpack("<4sIII4s", contents[:20])
    assert (magic, version, total, kind) == (b"glTF", 2, len(contents), b"JSON")
    tree = json.loads(contents[20 : 20 + length])
    size, kind = struct.unpack("<I4s", contents[20 + length : 28 + length])
    assert kind == b"BIN\0"
    body = contents[28 + length : 28 + length + size]
    (primitive,) = tree["meshes"][0]["primitives"]
    attributes = {}
    for name, index in primitive["attributes"].items():
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        assert accessor["componentType"] == 5126  # float
        assert accessor["type"] == "VEC3"
        start = view["byteOffset"] + accessor.get("byteOffset", 0)
        assert start % 4 == 0
        values = np.frombuffer(body, "<f4", 3 * accessor["count"], start).reshape(-1, 3)
        np.testing.assert_array_equal(accessor["max"], values.max(axis=0))
        attributes[name] = values
    return tree, attributes


def test_glb_is_matt_and_has_normals(model: MorphableModel, reconstruction: Reconstruction) -> None:
    contents = encode_meshes(reconstruction.vertices.numpy(), model.faces.numpy(), reconstruction.colors.numpy())[
        ".glb"
    ]
    tree, attributes = read_glb(contents)
    (primitive,) = tree["meshes"][0]["primitives"]
    assert set(attributes) == {"POSITION", "NORMAL", "COLOR_0"}
    assert tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["metallicFactor"] == 0
    normals = ops.vertex_normals(reconstruction.vertices[None], model.faces)[0].numpy()
    np.testing.assert_allclose(attributes["NORMAL"], normals, atol=1e-5)


def test_colors_of_a_glb_are_those_of_the_model_also_in_the_dark() -> None:
    levels = np.arange(256) / 255
    vertices = np.random.default_rng(0).normal(size=(256, 3))
    faces = np.arange(255 - 255 % 3).reshape(-1, 3)
    contents = encode_meshes(vertices, faces, np.repeat(levels[:, None], 3, axis=1))[".glb"]
    linear = read_glb(contents)[1]["COLOR_0"].astype(np.float64)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(255 * srgb, np.repeat(255 * levels[:, None], 3, axis=1), atol=1e-3)
    read = trimesh.load(io.BytesIO(contents), file_type="glb", force="mesh", process=False, skip_materials=True)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3], 255 * linear, atol=0.51)


def test_normals_of_a_glb_have_unit_length_wherever_they_are() -> None:
    """A triangle, one without area, two of opposite sense, and a vertex without a face."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [6, 0, 0], [7, 0, 0], [8, 0, 0], [9, 9, 9.0]])
    faces = np.array([[0, 1, 2], [3, 4, 5], [3, 6, 2], [3, 2, 6]])
    _, attributes = read_glb(encode_meshes(vertices, faces, np.full((8, 3), 0.5))[".glb"])
    np.testing.assert_allclose(np.linalg.norm(attributes["NORMAL"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failing_disk_leaves_no_half_result(
    reconstruction: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    reconstruction.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    changed = replace(reconstruction, parameters=FaceParameters.mean(reconstruction.model))
    calls = []

    def fail(*arguments: object) -> None:
        calls.append(arguments)
        if broken == "replace" or len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(FocusError, match=r"cannot write some face.ply, .* No space left on device"):
        changed.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_full_disk(tmp_path: Path) -> None:
    """A real limit on the size of files, in a process of its own."""
    script = """
        import resource, signal, sys
        from pathlib import Path
        from focus.errors import FocusError
        from focus.report.files import write_together
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_together(Path(sys.argv[1]), {"small": b"1" * 10, "large": b"2" * 5000})
        except FocusError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "cannot write small, large" in result.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_unusable_folder(reconstruction: Reconstruction, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FocusError, match="cannot write"):
        reconstruction.save(tmp_path / "file" / "below")
    with pytest.raises(FocusError, match="cannot write"):
        write_together(tmp_path, {"a" * 300: b""})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("stem", ["", "../elsewhere", "sub/face"])
def test_stems_stay_in_the_folder(reconstruction: Reconstruction, tmp_path: Path, stem: str) -> None:
    with pytest.raises(FocusError, match="save: stem: expected the start of a file name"):
        reconstruction.save(tmp_path / "out", stem)
    assert not list(tmp_path.iterdir())


def checkpoint(folder: Path, model: MorphableModel, *, method: str = "focus", step: int = 15) -> Path:
    """Random networks of the preset `small`, as if after some training: 10 + 10 + 10 iterations."""
    stages = StageSettings(initialise=10, segmentation=10, joint=10, cycle=10, segmentation_in_cycle=5)
    settings = replace(Settings.preset("small"), method=method, start=None, stages=stages)
    torch.manual_seed(0)
    networks = Networks.build(settings, model)
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
    header = Header(
        settings=settings.to_dict(), model_name=model.name, model_fingerprint=model.fingerprint(), step=step
    )
    return save_checkpoint(folder / "last.safetensors", header, tensors)


def test_a_reconstructor_in_bfloat16_says_nearly_the_same(model: MorphableModel, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, model)
    single, half = Reconstructor.load(path, model=model), Reconstructor.load(path, model=model, precision="bfloat16")
    images = torch.rand(2, 3, single.image_size, single.image_size, generator=torch.Generator().manual_seed(0))
    for one, other in zip(single(images), half(images), strict=True):
        assert other.mask.dtype == torch.float32
        assert not torch.equal(one.mask, other.mask)
        assert float((one.mask - other.mask).abs().mean()) < 0.02
    assert torch.equal(Reconstructor.load(path, model=model)(images)[0].mask, single(images)[0].mask)


def test_reconstructor(model: MorphableModel, tmp_path: Path) -> None:
    reconstructor = Reconstructor.load(checkpoint(tmp_path, model), model=model)
    size = reconstructor.image_size
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    results = reconstructor(images)
    assert [result.name for result in results] == ["face_0", "face_1"]
    first = results[0]
    assert np.array_equal(first.photo, images[0].permute(1, 2, 0).numpy())
    assert torch.equal(first.image, images[0].float() / 255)
    assert first.parameters.batch_size == 1
    assert first.mask.max() <= 1
    assert not (first.mask * (1 - first.face)).any()
    full = MorphableModel.procedural("full", model.identity_count, model.expression_count, model.albedo_count)
    assert first.model.fingerprint() == full.fingerprint(), "results have all vertices, networks need few"
    whole = Renderer(full, size)(first.parameters)
    assert torch.equal(first.face, Renderer(crop_model(full, face_region(full)), size)(first.parameters).mask[0])
    assert 0.5 < float(first.face.sum() / whole.mask.sum()) < 1, "no scalp, no neck, as in a fit"
    assert 0 < first.occluded_fraction < 1  # the untrained segmentation network is undecided
    rendered = whole.landmarks[0].numpy()
    np.testing.assert_allclose(first.landmarks_68[17:], rendered[17:], atol=1e-3)
    same = reconstructor(images.float() / 255)
    torch.testing.assert_close(same[1].mask, results[1].mask)
    assert len(first.save(tmp_path / "out")) == len(RESULT_SUFFIXES)
    assert reconstructor(images[:0]) == []


def test_reconstructor_takes_photos(model: MorphableModel, reconstruction: Reconstruction, tmp_path: Path) -> None:
    reconstructor = Reconstructor.load(checkpoint(tmp_path, model), model=model)
    steps: list[int] = []
    result = reconstructor.photo(
        reconstruction.photo, reconstruction.landmarks_68, name="a.png", notify=lambda: steps.append(1)
    )
    assert len(steps) == 1
    assert result.name == "a.png"
    assert result.mask_in_photo().shape == (120, 150)
    with pytest.raises(FocusError, match="finite"):
        reconstructor.photo(reconstruction.photo, reconstruction.landmarks_68 * np.nan)


@pytest.mark.parametrize(
    ("method", "step"), [("mofa", 15), ("cutout", 15), ("skin", 15), ("pretrained", 15), ("focus", 5)]
)
def test_masks_without_a_trained_segmentation_network(
    model: MorphableModel, tmp_path: Path, method: str, step: int
) -> None:
    reconstructor = Reconstructor.load(checkpoint(tmp_path, model, method=method, step=step), model=model)
    size = reconstructor.image_size
    (result,) = reconstructor(torch.zeros(1, 3, size, size))
    if method in ("mofa", "cutout"):
        assert torch.equal(result.mask, result.face)
    elif method == "skin":
        assert torch.equal(result.mask, result.face * skin_mask(torch.zeros(1, 3, size, size))[0])
    else:  # a black photo is far from any skin
        assert set(result.mask.unique().tolist()) <= {0, 1}
        assert result.occluded_fraction > 0.9


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(3, 64, 64), ValueError, r"expected shape \[B, 3, \d+, \d+\], got \[3, 64, 64\]"),
        (torch.zeros(1, 3, 20, 20), ValueError, r"got \[1, 3, 20, 20\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), TypeError, "got torch.int64"),
        (np.zeros((1, 3, 64, 64)), TypeError, "got ndarray"),
        (torch.full((1, 3, 64, 64), float("nan")), ValueError, "expected finite numbers"),
    ],
)
def test_reconstructor_rejects(
    model: MorphableModel, tmp_path: Path, images: object, error: type[Exception], message: str
) -> None:
    reconstructor = Reconstructor.load(checkpoint(tmp_path, model), model=model)
    with pytest.raises(error, match=message):
        reconstructor(images)  # type: ignore[arg-type]


def test_reconstructor_needs_its_model(model: MorphableModel, tmp_path: Path) -> None:
    with pytest.raises(FocusError, match="trained with the face model"):
        Reconstructor.load(checkpoint(tmp_path, model), model=model.truncated(identity=3))
    with pytest.raises(FocusError, match="found none"):
        Reconstructor.load(tmp_path / "none.safetensors")
