"""ICT-FaceKit's folder, made up: a patch with an eyeball, parts that are left out, and ways to damage it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.errors import FocusError, FocusWarning
from focus.face import MorphableModel

COLUMNS, ROWS = 10, 9
FACE = COLUMNS * ROWS
BACK = 2
"""Vertices before those of the face, so that numbers change when they are left out."""
MEAN = np.zeros((BACK + FACE + 4, 3))
columns, rows = np.meshgrid(np.linspace(-7, 7, COLUMNS), np.linspace(-8, 8, ROWS))
MEAN[BACK : BACK + FACE] = np.stack((columns, rows, 6 - (columns**2 + rows**2) / 20), -1).reshape(-1, 3)
MEAN[:BACK] = (-8, 0, -5), (8, 0, -5)
MEAN[BACK + FACE :] = (-3, 3, 5), (-2, 3, 5), (-2, 4, 5), (-3, 4, 5)
OFFSETS = np.random.default_rng(0).normal(size=(4, *MEAN.shape)).round(3)
FILES = ("identity000", "identity001", "jawOpen", "browDown_L")
NUMBERS = list(range(68))
# The outer corners of the eyes are 94 mm apart.
NUMBERS[31], NUMBERS[36], NUMBERS[37], NUMBERS[45] = 36, 31, 45, 37
LANDMARKS = [BACK + index for index in NUMBERS]


def _write_obj(path: Path, vertices: np.ndarray) -> None:
    """As in the original: quads with texture coordinates, a material for each part, nothing else."""
    numbers = np.arange(FACE).reshape(ROWS, COLUMNS) + BACK + 1
    quads = np.stack((numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1]), -1).reshape(-1, 4)
    lines = ["mtllib ICTFaceModelMaterial.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices]
    lines += [f"vt {x / 20 + 0.5:.6f} {y / 20 + 0.5:.6f}" for x, y, _ in MEAN[: BACK + FACE]]
    lines += ["vt 3.0 0.25", "vt 3.5 0.25", "vt 3.5 1.0", "vt 4.0 1.0"]  # the fourth tile, to its edges
    lines += ["usemtl M_Face", *("f " + " ".join(f"{i}/{i}" for i in quad) for quad in quads)]
    lines += ["usemtl M_BackHead", "f 1/1 2/2 3/3"]
    lines += ["usemtl M_ScleraLeft", "f " + " ".join(f"{BACK + FACE + i}/{BACK + FACE + i}" for i in range(1, 5))]
    lines += ["usemtl M_EyeOcclusion", "f 93/93 94/94 95/95"]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "FaceXModel"
    folder.mkdir()
    _write_obj(folder / "generic_neutral_mesh.obj", MEAN)
    for name, offset in zip(FILES, OFFSETS, strict=True):
        _write_obj(folder / f"{name}.obj", MEAN + offset)
    _write_obj(folder / "cheekRaiser_L.obj", MEAN)  # there, but not among the expressions of the JSON file
    indices = {"expressions": ["jawOpen", "browDown_L"], "idx_to_landmark_verts": LANDMARKS}
    (folder / "vertex_indices.json").write_text(json.dumps(indices))
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "FaceXModel"))


def test_the_face_and_the_eyeballs_in_our_units(original: Path) -> None:
    model = MorphableModel.load(original)
    kept = slice(BACK, None)
    assert (model.vertex_count, model.identity_count, model.expression_count) == (FACE + 4, 2, 2)
    moved = model.mean_shape.numpy() - 10 * MEAN[kept]
    assert np.ptp(moved, axis=0).max() < 1e-4
    assert model.mean_shape[30, 1:].tolist() == pytest.approx([2, 27], abs=1e-4)  # the tip of the nose
    np.testing.assert_allclose(model.identity_basis, 10 * OFFSETS[:2, kept], atol=1e-4)
    np.testing.assert_allclose(model.expression_basis, 10 * OFFSETS[2:, kept], atol=1e-4)
    assert model.landmarks68.tolist() == NUMBERS
    assert model.expression_prior == "unit_interval"
    assert (model.name, model.licence[:3]) == ("ICT-FaceKit, synthetic albedo", "MIT")
    assert model.albedo_count == 40


def test_quads_are_cut_from_their_first_corner_and_look_outwards(original: Path) -> None:
    model = MorphableModel.load(original)
    assert model.faces[:2].tolist() == [[0, 1, COLUMNS + 1], [0, COLUMNS + 1, COLUMNS]]
    assert model.faces[-2:].tolist() == [[FACE, FACE + 1, FACE + 2], [FACE, FACE + 2, FACE + 3]]
    assert len(model.faces) == 2 * (ROWS - 1) * (COLUMNS - 1) + 2
    corners = model.mean_shape[model.faces.long()]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert bool((normals[:, 2] > 0).all())


def test_texture_coordinates_lie_in_one_tile(original: Path, folder: Path) -> None:
    uv = MorphableModel.load(original).uv
    assert uv is not None
    np.testing.assert_allclose(uv[:FACE], MEAN[BACK : BACK + FACE, :2] / 20 + 0.5, atol=1e-6)
    assert uv[FACE:].tolist() == [[0, 0.25], [0.5, 0.25], [0.5, 1], [1, 1]]
    neutral = folder / "generic_neutral_mesh.obj"
    lines = [line for line in neutral.read_text().splitlines() if not line.startswith("vt ")]
    bare = [" ".join(word.split("/")[0] for word in line.split()) for line in lines]
    neutral.write_text("\n".join(bare))
    assert MorphableModel.load(folder).uv is None


def test_landmarks_of_the_caller_are_vertices_of_the_file(original: Path) -> None:
    chosen = [index + 5 for index in LANDMARKS]
    assert MorphableModel.load(original, chosen).landmarks68.tolist() == [index + 5 for index in NUMBERS]
    with pytest.raises(FocusError, match=r"landmarks68: expected 68 vertices of the face .* not in the face: \[0, 1\]"):
        MorphableModel.load(original, range(68))
    with pytest.raises(FocusError, match=r"landmarks68: expected 68 vertices .* got 3"):
        MorphableModel.load(original, [2, 3, 4])


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return edit


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("identity000.obj"), r"identity000\.obj: no such file, but identity001\.obj is there"),
        (lambda f: [path.unlink() for path in f.glob("identity*")], r"identity000\.obj: no such file; expected all"),
        (_remove("jawOpen.obj"), r"jawOpen\.obj: no such file"),
        (_remove("vertex_indices.json"), r"vertex_indices\.json: expected JSON .* missing"),
        (_write("vertex_indices.json", b"{"), r"vertex_indices\.json: expected JSON .* damaged"),
        (_write("vertex_indices.json", b"[]"), r"vertex_indices\.json: expected JSON"),
        (_edit("vertex_indices.json", "jawOpen", "../jawOpen"), r"vertex_indices\.json: expressions: .*names, got"),
        (_edit("vertex_indices.json", "[2, 3", "[2.5, 3"), r"vertex_indices\.json: idx_to_landmark_verts: .*2\.5"),
        (_edit("vertex_indices.json", "[2, 3", "[2, 999"), r"vertex_indices\.json: .*not in the face: \[999\]"),
        (_edit("vertex_indices.json", "[2, 3", "[3"), r"vertex_indices\.json: expected 68 vertices .* got 67"),
        (_edit("identity001.obj", "v -7", "# -7"), r"identity001\.obj: line \d+: a face names vertex"),
        (_write("identity001.obj", b"v 1 2 3\n" * 95), r"identity001\.obj: expected the 96 vertices .* got 95"),
        (_edit("browDown_L.obj", "v ", "v x"), r"browDown_L\.obj: line 2: .*'x"),
        (_edit("browDown_L.obj", "v ", "v nan "), r"browDown_L\.obj: line 2: a vertex of 4 numbers|weight"),
        (_write("browDown_L.obj", b""), r"browDown_L\.obj: .*got 0 vertices"),
        (_write("browDown_L.obj", bytes(range(128, 256))), r"browDown_L\.obj: line 1: "),
        (_write("browDown_L.obj", b"v nan 0 0\n"), r"browDown_L\.obj: .*three finite numbers"),
        (_write("generic_neutral_mesh.obj", b"v 0 0 0\n"), r"neutral_mesh\.obj: .*material M_Face, .*: none"),
        (_edit("generic_neutral_mesh.obj", "M_Face", "M_Skin"), r"neutral_mesh\.obj: .*M_BackHead.*M_Skin"),
        (
            _edit("generic_neutral_mesh.obj", "f 3/3", "f 300/3"),
            r"neutral_mesh\.obj: line \d+: a face names vertex 300",
        ),
        (
            _edit("generic_neutral_mesh.obj", "f 3/3", "f 3/300"),
            r"neutral_mesh\.obj: damaged: .* not there \(it has 96\)",
        ),
        (_edit("generic_neutral_mesh.obj", "vt 3.0", "vt inf"), r"neutral_mesh\.obj: damaged: .* not finite"),
        (_edit("generic_neutral_mesh.obj", "f 3/3", "f a/3"), r"neutral_mesh\.obj: line \d+: 'a/3' is no corner"),
    ],
)
def test_damaged_folders(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(FocusError, match=message) as caught:
        MorphableModel.load(folder)
    assert str(folder) in str(caught.value)


def test_agrees_with_the_array_file_of_the_reference_data(shared_dir: Path, tmp_path: Path) -> None:
    path = shared_dir / "models" / "ict" / "ict_face.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    uv = [f"vt {u} {v}" for u, v in arrays["uv"]]
    triangles = ["usemtl M_Face", *("f " + " ".join(f"{i}/{i}" for i in triangle + 1) for triangle in arrays["faces"])]
    shapes = {"generic_neutral_mesh": 0 * arrays["mean"], "identity000": arrays["identity"][0].astype(np.float64)}
    shapes["jawOpen"] = arrays["expression"][arrays["expression_names"].tolist().index("jawOpen")].astype(np.float64)
    for name, offset in shapes.items():
        vertices = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in (arrays["mean"] + offset) / 10]
        (tmp_path / f"{name}.obj").write_text("\n".join(vertices + uv + triangles))
    indices = {"expressions": ["jawOpen"], "idx_to_landmark_verts": arrays["landmarks68"].tolist()}
    (tmp_path / "vertex_indices.json").write_text(json.dumps(indices))
    model, expected = MorphableModel.load(tmp_path), MorphableModel.load(path)
    assert model.expression_prior == expected.expression_prior
    for key in ("faces", "landmarks68"):
        assert torch.equal(getattr(model, key), getattr(expected, key))
    for key in ("mean_shape", "uv", "mean_albedo"):
        torch.testing.assert_close(getattr(model, key), getattr(expected, key), rtol=0, atol=1e-3)
    torch.testing.assert_close(model.identity_basis[0], expected.identity_basis[0], rtol=0, atol=1e-4)


def _rewrite(change: Callable[[str], str]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        for path in folder.glob("*.obj"):
            path.write_bytes(change(path.read_text()).encode())

    return rewrite


def _relative(text: str) -> str:
    """Polygons that count back from the last vertex and texture coordinate."""
    lines = text.splitlines()
    vertices, coordinates = (sum(line.startswith(kind) for line in lines) for kind in ("v ", "vt "))

    def corner(word: str) -> str:
        vertex, coordinate = map(int, word.split("/"))
        return f"{vertex - vertices - 1}/{coordinate - coordinates - 1}"

    return "\n".join(
        " ".join(["f", *map(corner, line.split()[1:])]) if line.startswith("f ") else line for line in lines
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join(f"\t {line} " for line in text.splitlines()),
        lambda text: "\n".join(
            line if line.startswith("usemtl") else f"{line} # {n}" for n, line in enumerate(text.splitlines())
        ),
        lambda text: text.replace("v ", "v  \\\n  ").replace(" \\\n", "\\\n"),
        _relative,
    ],
    ids=["byte-order mark", "CRLF", "indented", "comments", "continued", "relative"],
)
def test_folders_written_otherwise_are_the_same(original: Path, folder: Path, change: Callable[[str], str]) -> None:
    _rewrite(change)(folder)
    indices = folder / "vertex_indices.json"
    indices.write_bytes(b"\xef\xbb\xbf" + indices.read_bytes())
    expected, model = MorphableModel.load(original), MorphableModel.load(folder)
    for (key, first), (_, second) in zip(expected.named_buffers(), model.named_buffers(), strict=True):
        assert torch.equal(first, second), key


@pytest.mark.parametrize("line", ["curv 0 1 1 2", "q 1 2 3", "v 1 2", "f 1 2", "f -999 1 2"])
def test_lines_that_are_not_known_are_not_skipped(folder: Path, line: str) -> None:
    path = folder / "identity000.obj"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(FocusError, match=r"identity000\.obj: line \d+: .*Copy the folder again"):
        MorphableModel.load(folder)


def test_folders_in_metres_are_converted(original: Path, folder: Path) -> None:
    for path in folder.glob("*.obj"):
        lines = path.read_text().splitlines()
        words = [line.split() for line in lines]
        scaled = [" ".join(["v", *(repr(float(number) / 100) for number in row[1:])]) for row in words if row[0] == "v"]
        path.write_text("\n".join([*scaled, *(line for line in lines if not line.startswith("v "))]))
    with pytest.warns(FocusWarning, match=r"FaceXModel: the model is in metres, not centimetres"):
        model = MorphableModel.load(folder)
    expected = MorphableModel.load(original)
    assert "in metres" in model.notes[0]
    torch.testing.assert_close(model.mean_shape, expected.mean_shape, rtol=0, atol=1e-3)
    torch.testing.assert_close(model.identity_basis, expected.identity_basis, rtol=0, atol=1e-3)
