"""The NoW protocol on constructed scans: alignment, distances, the command, and what is refused."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focus import ops
from focus.cli import REFUSED, main
from focus.eval.now import (
    NowSettings,
    Placement,
    Surface,
    align_landmarks,
    cumulative,
    draw_curves,
    face_region,
    refine,
    scan_errors,
)
from focus.eval.now.dataset import Prediction, Scan, check_prediction, detect_unit
from focus.eval.now.files import Mesh, read_mesh
from focus.face import MorphableModel

igl = pytest.importorskip("igl")
METRICAL = NowSettings(metrical=True)


def build_scan(detail: Any = "small") -> Scan:
    """The mean face, as if scanned."""
    model = MorphableModel.procedural(detail, 1, 1, 1)
    assert model.landmarks7 is not None
    vertices = model.mean_shape.double().numpy()
    return Scan(Mesh(vertices, model.faces.long().numpy()), vertices[model.landmarks7.numpy()])


SCAN = build_scan()


def turned(degrees: float, axis: tuple[float, float, float] = (1, 2, 3)) -> np.ndarray:
    x, y, z = np.array(axis) / np.linalg.norm(axis) * np.radians(degrees)
    return torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)).numpy()


def moved(placement: Placement, scan: Scan = SCAN) -> Prediction:
    """The scan itself, where `placement` brings it back from."""
    mesh = Mesh(placement.inverse(scan.mesh.vertices), scan.mesh.faces)
    return Prediction(mesh, placement.inverse(scan.landmarks))


def test_region_by_hand() -> None:
    # Outer corners 90 apart, nose 50 long: the centre is 15 above its base, the radius 1.4 * 70.
    points = np.array([[-45, 50, 0], [-15, 50, 0], [15, 50, 0], [45, 50, 0], [0, 0, 0], [-25, -30, 0], [25, -30, 0.0]])
    centre, radius = face_region(points)
    assert centre.tolist() == [0, 15, 0]
    assert radius == pytest.approx(98)


def test_distance_to_a_triangle_by_hand() -> None:
    surface = Surface(np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0.0]]), np.array([[0, 1, 2]]))
    queries = np.array([[1, 1, 3], [-3, -4, 0], [2, -2, 0], [3, 3, 0], [0, 0, 0.0]])  # above, corner, two edges, on it
    assert surface.closest(queries).distances.tolist() == pytest.approx([3, 5, 2, 2**0.5, 0])
    assert surface.normals(np.array([0])).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("with_scale", [True, False])
def test_alignment_recovers_a_known_placement(with_scale: bool) -> None:
    """From landmarks that are off by millimetres, to less than 1e-3 mm."""
    true = Placement(0.01 if with_scale else 1.0, turned(50), np.array([30.0, -20, 10]))
    true = true._replace(scale=1 / true.scale)
    prediction = moved(true)
    noise = np.random.default_rng(1).normal(0, 2 / true.scale, (7, 3))
    start = align_landmarks(prediction.landmarks + noise, SCAN.landmarks, with_scale=with_scale)
    centre, radius = face_region(SCAN.landmarks)
    points = SCAN.mesh.vertices[np.linalg.norm(SCAN.mesh.vertices - centre, axis=1) <= radius]
    rough = np.abs(start.apply(prediction.mesh.vertices) - SCAN.mesh.vertices).max()
    surface = Surface(*prediction.mesh)
    found = refine(points, surface, start, with_scale=with_scale)
    assert rough > 1
    assert np.abs(found.apply(prediction.mesh.vertices) - SCAN.mesh.vertices).max() < 1e-3
    assert found.scale == pytest.approx(true.scale, rel=1e-6)


def test_exact_landmarks_alone_give_the_placement() -> None:
    true = Placement(7.0, turned(140), np.array([1.0, 2, 3]))
    errors, placement = scan_errors(SCAN, moved(true), settings=NowSettings(refine=False))
    assert errors.max() < 1e-6
    assert placement.scale == pytest.approx(7)


def test_a_millimetre_along_the_normals_measures_a_millimetre() -> None:
    scan = build_scan("full")
    vertices = torch.from_numpy(scan.mesh.vertices)[None]
    normals = ops.vertex_normals(vertices, torch.from_numpy(scan.mesh.faces))[0].numpy()
    offset = Prediction(Mesh(scan.mesh.vertices + normals, scan.mesh.faces), scan.landmarks)
    errors, _ = scan_errors(scan, offset, settings=NowSettings(refine=False))
    assert np.median(errors) == pytest.approx(1, abs=0.01)
    assert 0.95 < errors.mean() < 1  # in creases narrower than a millimetre, offsets of other places are nearer
    # The alignment absorbs most of it, by a scale of 0.99 and a shift; the shift alone absorbs most of it, too.
    refined, placement = scan_errors(scan, offset, settings=NowSettings(refinement_points=2000))
    assert 0.1 < refined.mean() < 0.2
    assert 0.98 < placement.scale < 1
    metrical, _ = scan_errors(scan, offset, settings=NowSettings(metrical=True, refinement_points=2000))
    assert refined.mean() < metrical.mean() < 0.3


def test_a_millimetre_off_a_smooth_surface_measures_a_millimetre_everywhere() -> None:
    """Of an ellipsoid, in the place of a face."""
    u, v = np.meshgrid(np.linspace(0.02, np.pi - 0.02, 120), np.linspace(0, 2 * np.pi, 240), indexing="ij")
    unit = np.stack([np.sin(u) * np.cos(v), np.cos(u), np.sin(u) * np.sin(v)], axis=2).reshape(-1, 3)
    radii = np.array([75, 100, 90.0])
    normals = unit / radii
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    corner = (np.arange(119)[:, None] * 240 + np.arange(239)).reshape(-1, 1)
    faces = np.concatenate([np.add(corner, [0, 240, 1]), np.add(corner, [1, 240, 241])])
    places = np.array([[-45, 40], [-15, 40], [15, 40], [45, 40], [0, 0], [-25, -30], [25, -30.0]])
    landmarks = np.array([[x, y, 90 * np.sqrt(1 - (x / 75) ** 2 - (y / 100) ** 2)] for x, y in places])
    scan = Scan(Mesh(unit * radii, faces), landmarks)
    offset = Prediction(Mesh(unit * radii + normals, faces), landmarks)
    errors, _ = scan_errors(scan, offset, settings=NowSettings(refine=False))
    assert len(errors) > 1000
    assert np.abs(errors - 1).max() < 0.01


def test_the_metrical_protocol_counts_size() -> None:
    prediction = moved(Placement(1 / 1.03, np.eye(3), np.zeros(3)))  # three percent too large
    free, _ = scan_errors(SCAN, prediction)
    fixed, placement = scan_errors(SCAN, prediction, settings=METRICAL)
    assert free.max() < 1e-6
    assert fixed.mean() > 0.3
    assert placement.scale == 1
    in_metres = moved(Placement(1000 / 1.03, np.eye(3), np.zeros(3)))
    # The mean face is symmetric, and leaves its landmarks' placement for either side, by rounding: without refinement.
    fixed, _ = scan_errors(SCAN, prediction, settings=replace(METRICAL, refine=False))
    same, placement = scan_errors(SCAN, in_metres, unit="m", settings=replace(METRICAL, refine=False))
    np.testing.assert_allclose(same, fixed, atol=1e-5)
    assert placement.scale == 1000


def test_only_the_refinement_is_subsampled() -> None:
    centre, radius = face_region(SCAN.landmarks)
    inside = int((np.linalg.norm(SCAN.mesh.vertices - centre, axis=1) <= radius).sum())
    errors, _ = scan_errors(
        SCAN, moved(Placement(1, np.eye(3), np.zeros(3))), settings=NowSettings(refinement_points=9)
    )
    assert errors.shape == (inside,)
    assert 9 < inside < len(SCAN.mesh.vertices)


def test_refinement_ends_in_a_minimum() -> None:
    """Of a shape that fits nowhere: no small change of the placement lowers the sum of squares."""
    rng = np.random.default_rng(2)
    points = SCAN.mesh.vertices[::3] * [1.1, 0.95, 1.05] + rng.normal(0, 1, SCAN.mesh.vertices[::3].shape)
    surface = Surface(*SCAN.mesh)

    def cost(placement: Placement) -> float:
        return float(np.square(placement.scale * surface.closest(placement.inverse(points)).distances).sum())

    found = refine(points, surface, Placement(1.0, turned(5), np.array([3.0, 3, 3])), with_scale=True)
    lowest = cost(found)
    for axis in np.eye(3):
        for sign in (-1, 1):
            assert cost(found._replace(translation=found.translation + sign * 0.01 * axis)) >= lowest
            tilted = turned(sign * 0.02, tuple(axis)) @ found.rotation
            assert cost(found._replace(rotation=tilted)) >= lowest
    assert cost(found._replace(scale=found.scale * 1.0001)) >= lowest


def test_cumulative_by_hand() -> None:
    errors = np.array([0.5, 1, 1, 3], np.float32)
    assert cumulative(errors, np.array([0, 0.5, 1, 2, 3])).tolist() == [0, 25, 75, 75, 100]


def test_figure_is_a_picture() -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves({"a": np.ones(4, np.float32)}, title="t").startswith(b"\x89PNG")


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices] + [f"f {a}/1 {b}/2 {c}/3" for a, b, c in faces + 1]
    path.write_text("\n".join(lines) + "\n")


def picked_points(points: np.ndarray) -> str:
    """As MeshLab writes them."""
    rows = [f'<point x="{x}" y="{y}" z="{z}" active="1" name="{i}"/>' for i, (x, y, z) in enumerate(points)]
    return "\n".join(["<!DOCTYPE PickedPoints>", "<PickedPoints>", *rows, "</PickedPoints>"])


IMAGES = ["A/multiview_neutral/IMG_1", "A/selfie/IMG_1", "B/multiview_occlusions/IMG_7"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two scans and three images, and two methods: the truth in other places, and the truth one mm off."""
    tmp_path = tmp_path_factory.mktemp("now")
    for shift, subject in enumerate("AB"):
        vertices = SCAN.mesh.vertices + 10 * shift
        write_obj(tmp_path / "scans" / subject / "scan.obj", vertices, SCAN.mesh.faces)
        (tmp_path / "scans_lmks_onlypp" / subject).mkdir(parents=True)
        text = picked_points(SCAN.landmarks + 10 * shift)
        (tmp_path / "scans_lmks_onlypp" / subject / "scan.pp").write_text(text)
    (tmp_path / "images.txt").write_text("\n".join(f"{name}.jpg" for name in IMAGES) + "\n")
    stretched = SCAN.mesh.vertices * [1.02, 1, 1]
    for number, name in enumerate(IMAGES):
        prediction = moved(Placement(1 + number, turned(40 * number), np.ones(3)))
        write_obj(tmp_path / "true" / f"{name}.obj", prediction.mesh.vertices, prediction.mesh.faces)
        np.save(tmp_path / "true" / f"{name}.npy", prediction.landmarks)
        write_obj(tmp_path / "wide" / f"{name}.obj", stretched, SCAN.mesh.faces)
        np.savetxt(tmp_path / "wide" / f"{name}.txt", SCAN.landmarks * [1.02, 1, 1])
    return tmp_path


@pytest.fixture
def now(dataset: Path, tmp_path: Path) -> Path:
    """A copy of `dataset`, to be damaged."""
    return shutil.copytree(dataset, tmp_path / "now")


def command(folder: Path, *more: object) -> list[str]:
    arguments = ["--scans", folder, "--images", folder / "images.txt", "--workers", "1"]
    arguments += ["--refinement-points", "300", *more]  # the last of two counts
    named = ["--predictions", f"true={folder / 'true'}", f"wide={folder / 'wide'}"]
    return ["evaluate", "now", *map(str, arguments), *named]


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_command_end_to_end(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    said = answer(command(now, "--out", now / "out"), capsys)
    true, wide = said["methods"]["true"], said["methods"]["wide"]
    assert true["all"]["mean"] < 1e-4
    assert 0.05 < wide["all"]["median"] < wide["all"]["mean"] < 1
    assert list(true["challenges"]) == ["multiview_neutral", "multiview_occlusions", "selfie"]
    assert [image["name"] for image in wide["images"]] == IMAGES
    assert said["scans_per_second"] > 0
    assert sorted(path.name for path in (now / "out").iterdir()) == ["curves.png", "errors.npz", "metrics.json"]
    with np.load(now / "out" / "errors.npz") as arrays:
        assert arrays["images"].tolist() == IMAGES
        bounds, errors = arrays["bounds"], arrays["errors wide"]
        assert len(errors) == bounds[-1] == wide["all"]["vertices"]
        assert float(np.median(errors)) == pytest.approx(wide["all"]["median"])
        second = errors[bounds[1] : bounds[2]]
    assert float(second.mean()) == pytest.approx(wide["images"][1]["mean"], rel=1e-5)
    assert json.loads((now / "out" / "metrics.json").read_text())["methods"]["true"] == true


@pytest.mark.slow
def test_processes_do_not_change_results(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = answer(command(now), capsys)
    two = answer([word if word != "1" else "2" for word in command(now)], capsys)
    assert one["methods"] == two["methods"]


def test_command_for_people(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(now, "--no-refine")) == 0
    shown = capsys.readouterr().out
    assert "multiview_occlusions" in shown
    assert "scans per second" in shown


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], pattern: str) -> None:
    assert main(arguments) == REFUSED
    said = capsys.readouterr().err
    assert re.search(pattern, " ".join(said.split())), said


def _remove(path: Path) -> None:
    path.unlink()


def _write(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


def _nan(path: Path) -> None:
    path.write_text(path.read_text().replace(path.read_text().splitlines()[5], "v nan 0 0"))


def _resized(factor: float) -> Callable[[Path], None]:
    """A mesh that is `factor` times as large about its middle, so that it is still where its landmarks are."""

    def resize(path: Path) -> None:
        mesh = read_mesh(path)
        middle = mesh.vertices.mean(axis=0)
        write_obj(path, middle + factor * (mesh.vertices - middle), mesh.faces)

    return resize


def _saved(points: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        np.save(path, points)

    return save


def _archive(part: float) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, points=SCAN.landmarks)
        path.write_bytes(buffer.getvalue()[: int(part * buffer.tell())])

    return save


def _other_mesh(path: Path) -> None:
    (path.with_suffix(".ply")).write_bytes(path.read_bytes())


MIRROR = SCAN.landmarks[[3, 2, 1, 0, 4, 6, 5]]
PICKED = picked_points(SCAN.landmarks)

BROKEN: list[tuple[str, Callable[[Path], None], str]] = [
    ("wide/A/selfie/IMG_1.obj", _remove, "A/selfie/IMG_1: wide: .* no mesh: expected IMG_1.obj or IMG_1.ply"),
    ("wide/A/selfie/IMG_1.txt", _remove, "no landmarks: expected IMG_1.npy or IMG_1.txt"),
    ("wide/A/selfie/IMG_1.obj", _write(""), "the file is empty"),
    ("wide/A/selfie/IMG_1.obj", _write("v 0 0 0\n"), "1 vertices and 0 faces"),
    ("wide/A/selfie/IMG_1.obj", _write("v 0 0 0\nf 1 2 3\n"), "names vertex 2 .* of 1"),
    ("wide/A/selfie/IMG_1.obj", _write("v 0 0 0\nf -1 -1 -2\n"), "line 2: a face names vertex -2"),
    ("wide/A/selfie/IMG_1.obj", _write("v 0 0\n"), "damaged"),
    ("wide/A/selfie/IMG_1.obj", _write(f"v 0 0 0\nf 1 1 {2**63}\n"), "damaged"),
    ("wide/A/selfie/IMG_1.obj", _nan, "1 of [0-9]+ vertices are not finite"),
    ("true/A/selfie/IMG_1.obj", _other_mesh, "both IMG_1.obj and IMG_1.ply"),
    ("true/A/selfie/IMG_1.npy", _saved(SCAN.landmarks[:5]), r"expected 7 landmarks .* \[5, 3\]"),
    ("true/A/selfie/IMG_1.npy", _saved(np.full((7, 3), np.nan)), "not finite"),
    ("true/A/selfie/IMG_1.npy", _saved(np.array(["x"] * 7)), "cannot be read as landmarks"),
    ("true/A/selfie/IMG_1.npy", _write("nonsense"), "cannot be read as landmarks"),
    ("true/A/selfie/IMG_1.npy", _archive(1.0), "cannot be read as landmarks"),
    ("true/A/selfie/IMG_1.npy", _archive(0.5), "cannot be read as landmarks"),
    ("true/A/selfie/IMG_1.npy", _saved(SCAN.landmarks * 1000), "away from the mesh"),
    ("true/A/selfie/IMG_1.npy", _saved(np.ones((7, 3))), "in one place"),
    ("true/A/multiview_neutral/IMG_1.npy", _saved(MIRROR), "mirror image"),
    ("scans/B/scan.obj", _remove, "expected one .obj file .* found none"),
    ("scans/B/scan.obj", _write(""), "the file is empty"),
    ("scans/B/scan.obj", _nan, "not finite"),
    ("scans/B/scan.obj", _write("v 0 9000 0\nv 1 9000 0\nv 0 9001 0\nf 1 2 3\n"), "no vertex within"),
    ("scans/B/scan.obj", _resized(0.001), "of the eyes' distance away from the scan"),
    ("scans/B/scan.obj", _resized(0.1), "of the eyes' distance away from the scan"),
    ("scans/B/scan.obj", _resized(2), "of the eyes' distance away from the scan"),
    ("true/A/selfie/IMG_1.obj", _resized(0.1), "of the eyes' distance away from the mesh"),
    ("true/A/selfie/IMG_1.obj", _resized(0.5), "of the eyes' distance away from the mesh"),
    ("true/A/selfie/IMG_1.obj", _resized(2), "of the eyes' distance away from the mesh"),
    ("true/A/multiview_neutral/IMG_1.npy", _saved(SCAN.landmarks[[5, 6, 4, 0, 1, 2, 3]]), "order 3 4 5 6 2 0 1 "),
    ("true/A/multiview_neutral/IMG_1.npy", _saved(SCAN.landmarks[[1, 0, 2, 3, 4, 5, 6]]), "order 1 0 2 3 4 5 6 "),
    ("true/A/multiview_neutral/IMG_1.npy", _saved(SCAN.landmarks * [1, 0.2, 1]), "away from those of the scan"),
    ("scans_lmks_onlypp/B/scan.pp", _remove, "expected one .pp file"),
    ("scans_lmks_onlypp/B/scan.pp", _write(picked_points(SCAN.landmarks[:6])), "expected 7 landmarks"),
    ("scans_lmks_onlypp/B/scan.pp", _write(PICKED[:-30]), "cannot be read as PickedPoints"),
    ("scans_lmks_onlypp/B/scan.pp", _write('<?xml version="1.0" encoding="no-such"?><a/>'), "cannot be read as Picked"),
    ("scans_lmks_onlypp/B/scan.pp", _write(PICKED.replace('x="', 'u="')), "cannot be read as PickedPoints"),
    ("scans_lmks_onlypp/B/scan.pp", _write(PICKED.replace('active="1"', 'active="0"', 1)), "was not picked"),
    ("scans_lmks_onlypp/B/scan.pp", _write(picked_points(SCAN.landmarks / 1000)), "in m; expected a scan in mm"),
    ("images.txt", _remove, "no such file"),
    ("images.txt", _write("\n"), "found none"),
    ("images.txt", _write("A/IMG_1.jpg\n"), "line 1: expected"),
    ("images.txt", _write("../A/../IMG_1.jpg\n"), "line 1: expected"),
    ("images.txt", _write("A/selfie/IMG_1.jpg\nx/A/selfie/IMG_1.png\n"), "line 2: A/selfie/IMG_1 is in line 1"),
]


@pytest.mark.parametrize(("file", "damage", "pattern"), BROKEN)
def test_what_is_wrong_is_named(
    now: Path, file: str, damage: Callable[[Path], None], pattern: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(now / file)
    refused(command(now, "--out", now / "out"), capsys, pattern)
    assert not (now / "out").exists()


def test_nearly_flat_landmarks_are_no_mirror_image() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 7)
    for sign in (1, -1):
        flat = Mesh(SCAN.mesh.vertices * [1, 1, 0.02], SCAN.mesh.faces)
        landmarks = np.column_stack([SCAN.landmarks[:, :2], sign * noise])
        check_prediction(Prediction(flat, landmarks), SCAN, unit="mm", metrical=False)


def test_lists_of_images_may_begin_with_a_byte_order_mark(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (now / "images.txt").write_text((now / "images.txt").read_text(), encoding="utf-8-sig")
    assert answer(command(now), capsys)["methods"]["true"]["all"]["images"] == 3


def test_a_place_for_results_is_looked_for_before_the_work(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (now / "scans" / "A" / "scan.obj").unlink()  # would be named first
    refused(command(now, "--out", now / "images.txt"), capsys, "images.txt is a file; choose another")
    refused(command(now, "--out", now / "images.txt" / "out"), capsys, "images.txt is a file; choose another")


def test_partial_leaves_images_out_for_all(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (now / "wide" / f"{IMAGES[1]}.obj").unlink()
    said = answer(command(now, "--partial"), capsys)
    assert [skip["name"] for skip in said["skipped"]] == [IMAGES[1]]
    assert [left["image"] for left in said["left_out"]] == [IMAGES[1]]
    for method in ("true", "wide"):
        assert said["methods"][method]["all"]["images"] == 2


@pytest.mark.parametrize(("factor", "unit"), [(1, "mm"), (0.1, "cm"), (0.001, "m"), (1e-5, None)])
def test_units_are_seen_by_size(factor: float, unit: str | None) -> None:
    assert detect_unit(SCAN.landmarks * factor) == unit


def test_metres_are_named_and_never_mended(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in IMAGES:
        write_obj(now / "true" / f"{name}.obj", SCAN.mesh.vertices / 1000, SCAN.mesh.faces)
        np.save(now / "true" / f"{name}.npy", SCAN.landmarks / 1000)
    assert any("true: in m and not mm" in note for note in answer(command(now), capsys)["notes"])
    refused(command(now, "--metrical"), capsys, "in m, not mm; convert the meshes, or say")
    said = answer(command(now, "--metrical", "--units", "true=m"), capsys)
    assert said["methods"]["true"]["all"]["mean"] < 1e-4
    assert said["methods"]["wide"]["all"]["mean"] > 0.05


@pytest.mark.parametrize(
    ("more", "pattern"),
    [
        (["--units", "true=inch"], "expected true=mm, cm or m"),
        (["--units", "nobody=m"], "no predictions of nobody"),
        (["--units", "true"], "expected NAME=VALUE"),
        (["--workers", "0"], "a whole number from 1"),
        (["--refinement-points", "2"], "a whole number from 3"),
        (["--landmarks", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_options_are_checked(now: Path, more: list[str], pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(command(now, *more), capsys, pattern)


def test_without_libigl_the_extra_is_named(
    now: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "igl", None)
    refused(command(now), capsys, r"igl is needed to measure distances .*focus-face\[evaluate\]")


def test_a_name_for_each_method(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused([*command(now), f"true={now / 'wide'}"], capsys, "true is given twice")
    refused([*command(now), f"third={now / 'nowhere'}"], capsys, "no such folder of predictions")


def test_non_manifold_scans_are_named_and_measured(now: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (now / "scans" / "A" / "scan.obj").open("a") as file:
        file.write("v 0 0 0\nf 1 2 3\nf 1 2 4\nf 1 2 5\n")
    said = answer(command(now), capsys)
    assert any(note.startswith("non-manifold scan") for note in said["notes"])
    assert any("no face uses" in note for note in said["notes"])
