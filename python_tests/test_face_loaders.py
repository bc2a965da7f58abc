"""Model files: our own, Basel, arrays, FLAME; and what is said about damaged ones."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focus.errors import FocusError
from focus.face import FaceParameters, MorphableModel, Renderer
from focus.face.loaders import read_landmarks68

COUNT = 90
LANDMARKS = list(range(68))
# The outer corners of the eyes are 94 mm apart.
LANDMARKS[31], LANDMARKS[36], LANDMARKS[37], LANDMARKS[45] = 36, 31, 45, 37


def _bumpy_patch() -> tuple[np.ndarray, np.ndarray]:
    """Vertices [90, 3] mm of a domed grid that faces +z, and its faces."""
    columns, rows = np.meshgrid(np.linspace(-70, 70, 10), np.linspace(-80, 80, 9))
    vertices = np.stack((columns, rows, 60 - (columns**2 + rows**2) / 200), -1).reshape(-1, 3)
    i = np.arange(90).reshape(9, 10)
    a, b, c, d = (q.ravel() for q in (i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]))
    return vertices, np.concatenate((np.stack((a, b, c), 1), np.stack((a, c, d), 1)))


def _arrays(**changes: Any) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    vertices, faces = _bumpy_patch()
    arrays = {
        "mean": vertices.astype(np.float32),
        "identity": generator.normal(size=(4, COUNT, 3)).astype(np.float16),
        "expression": generator.normal(size=(2, COUNT, 3)).astype(np.float16),
        "faces": faces.astype(np.int32),
        "landmarks68": np.array(LANDMARKS),
    }
    arrays.update(changes)
    return {key: value for key, value in arrays.items() if value is not None}


def _save_basel(path: Path, drop: str = "") -> dict[str, np.ndarray]:
    h5py = pytest.importorskip("h5py")
    generator = np.random.default_rng(1)
    vertices, faces = _bumpy_patch()
    data = {"shape/representer/cells": faces.T.astype(np.int32)}
    for part, count in (("shape", 5), ("expression", 3), ("color", 4)):
        data[f"{part}/model/mean"] = generator.random(3 * COUNT).astype(np.float32)
        data[f"{part}/model/pcaBasis"] = generator.normal(size=(3 * COUNT, count)).astype(np.float32)
        data[f"{part}/model/pcaVariance"] = np.arange(count, 0, -1).astype(np.float32) ** 2
    data["shape/model/mean"] = vertices.ravel().astype(np.float32)
    with h5py.File(path, "w") as file:
        for key, value in data.items():
            if key != drop:
                file[key] = value
    return data


@pytest.fixture(scope="module")
def small_model() -> MorphableModel:
    return MorphableModel.procedural("small")


def _same(first: MorphableModel, second: MorphableModel) -> bool:
    pairs = zip(first.named_buffers(), second.named_buffers(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("suffix", [".focusmodel", ".safetensors"])
def test_own_format_round_trip(small_model: MorphableModel, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "folder" / f"face{suffix}"
    model = small_model.truncated(5, 4, 3)
    model.save(path)
    loaded = MorphableModel.load(path)
    assert _same(model, loaded)
    assert (loaded.name, loaded.licence, loaded.expression_prior) == (model.name, model.licence, "normal")
    assert loaded.fingerprint() == model.fingerprint()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_landmarks_of_the_caller_replace_those_of_the_file(tmp_path: Path) -> None:
    own, arrays = tmp_path / "a.focusmodel", tmp_path / "a.npz"
    np.savez(arrays, **_arrays())
    MorphableModel.load(arrays).save(own)
    others = [index + 2 for index in LANDMARKS]
    for path in (own, arrays):
        for given in (others, np.array(others, np.uint16), [np.int64(index) for index in others]):
            assert MorphableModel.load(path, given).landmarks68.tolist() == others
        with pytest.raises(FocusError, match=rf"{path.name}.*landmarks68: expected"):
            MorphableModel.load(path, [10**6] * 68)
        with pytest.raises(FocusError, match=rf"{path.name}.*landmarks68: expected shape"):
            MorphableModel.load(path, [1, 2, 3])


@pytest.mark.parametrize("separator", [" ", ", ", "\n"])
def test_landmarks_in_a_text_file(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "indices.txt"
    text = separator.join(map(str, range(68)))
    for content in (text, f"[{text}]\n"):
        path.write_text(content)
        assert read_landmarks68(path) == list(range(68))
    for content, message in ((text[:-3], "got 67"), (f"{text}{separator}x", "'x'"), (f"{text}.5", "67.5")):
        path.write_text(content)
        with pytest.raises(FocusError, match=rf"indices\.txt: expected .*68 vertex indices.*{message}"):
            read_landmarks68(path)
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_landmarks68(path) == list(range(68))
    for word in ("1_0", "-1", "\u0663", "1" * 5000):
        path.write_text(f"{text[:-2]}{word}", encoding="utf-8")
        with pytest.raises(FocusError, match=r"indices\.txt: expected .*68 vertex indices"):
            read_landmarks68(path)
    with pytest.raises(FocusError, match="no such file"):
        read_landmarks68(tmp_path / "none.txt")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FocusError, match=r"indices\.txt"):
        read_landmarks68(path)


def test_save_refuses_other_suffixes(small_model: MorphableModel, tmp_path: Path) -> None:
    with pytest.raises(FocusError, match=r"face\.bin.*\.focusmodel or \.safetensors"):
        small_model.save(tmp_path / "face.bin")


def test_nothing_is_left_when_writing_fails(small_model: MorphableModel, tmp_path: Path) -> None:
    target = tmp_path / "face.focusmodel"
    target.mkdir()
    (target / "inside").touch()
    with pytest.raises(FocusError, match="could not be written"):
        small_model.truncated(1, 1, 1).save(target)
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("name", ["a.focusmodel", "a.h5", "a.mat", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"not a model", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + b"\0" * 40])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    if name.endswith(".mat"):
        pytest.importorskip("scipy")
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FocusError, match=name) as caught:
        MorphableModel.load(path)
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.98])
def test_truncated_files(small_model: MorphableModel, tmp_path: Path, fraction: float) -> None:
    own, arrays = tmp_path / "a.focusmodel", tmp_path / "a.npz"
    small_model.truncated(2, 2, 2).save(own)
    np.savez(arrays, **_arrays())
    paths = [own, arrays]
    if pytest.importorskip("h5py"):
        paths.append(tmp_path / "a.h5")
        _save_basel(paths[-1])
    for path in paths:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * fraction)])
        with pytest.raises(FocusError, match=path.name):
            MorphableModel.load(path)


def test_bytes_changed_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **_arrays())
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        entry = file.getinfo("identity.npy")
    start, end = entry.header_offset + 100, entry.header_offset + entry.compress_size
    for place in range(start, end, (end - start) // 20):
        path.write_bytes(whole[:place] + bytes(20) + whole[place + 20 :])
        with pytest.raises(FocusError, match=r"a\.npz"):
            MorphableModel.load(path)


@pytest.mark.parametrize("shape", ["(1000000000000, 3)", f"({10**30}, 3)", "(-1, 3)", "("])
def test_headers_that_claim_what_is_not_there(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("mean.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(FocusError, match=r"a\.npz: expected an \.npz file of plain arrays"):
        MorphableModel.load(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["shape/model/mean", "shape/representer/cells"])
@pytest.mark.parametrize("value", ["text", 5, None])
def test_basel_datasets_of_another_kind(tmp_path: Path, name: str, value: object) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "bfm.h5"
    _save_basel(path, drop=name)
    with h5py.File(path, "a") as file:
        file[name] = h5py.Empty("f4") if value is None else value
    with pytest.raises(FocusError, match=r"bfm\.h5"):
        MorphableModel.load(path, landmarks68=LANDMARKS)


def test_missing_unknown_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FocusError, match="no such model file"):
        MorphableModel.load(tmp_path / "absent.npz")
    (tmp_path / "face.xyz").write_text("?")
    with pytest.raises(FocusError, match=r"unknown kind of model file '\.xyz'"):
        MorphableModel.load(tmp_path / "face.xyz")
    with pytest.raises(FocusError, match="got a folder"):
        MorphableModel.load(tmp_path)


class _Explosive:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(_Explosive()))
    with pytest.raises(FocusError, match=r"flame\.pkl.*pickle.*Convert it once"):
        MorphableModel.load(tmp_path / "flame.pkl")
    np.savez(tmp_path / "objects.npz", **_arrays(mean=np.array([_Explosive()], dtype=object)))
    with pytest.raises(FocusError, match=r"objects\.npz"):
        MorphableModel.load(tmp_path / "objects.npz")
    assert not (tmp_path / "exploded").exists()


def test_arrays_are_centred_and_painted(tmp_path: Path) -> None:
    arrays = _arrays()
    np.savez(tmp_path / "a.npz", **arrays)
    model = MorphableModel.load(tmp_path / "a.npz")
    assert (model.vertex_count, model.identity_count, model.expression_count, model.albedo_count) == (COUNT, 4, 2, 40)
    assert model.expression_prior == "normal"
    assert model.mean_shape[30, 1:].tolist() == pytest.approx([2, 27], abs=1e-4)
    moved = model.mean_shape.numpy() - arrays["mean"]
    assert np.ptp(moved, axis=0).max() < 1e-4
    assert "synthetic albedo" in model.name


def test_arrays_with_colour_and_names(tmp_path: Path) -> None:
    colour = np.full((COUNT, 3), 0.25)
    extra = {
        "mean_albedo": colour,
        "albedo": np.zeros((3, COUNT, 3)),
        "expression_names": np.array(["a", "b"]),
        "name": "mine",
    }
    np.savez(tmp_path / "a.npz", **_arrays(**extra))
    model = MorphableModel.load(tmp_path / "a.npz")
    assert (model.name, model.expression_prior, model.albedo_count) == ("mine", "unit_interval", 3)
    assert float(model.mean_albedo.min()) == float(model.mean_albedo.max()) == 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": None}, "missing: identity"),
        ({"landmarks68": None}, "landmarks68"),
        ({"landmarks68": np.arange(67)}, r"landmarks68: expected shape \[68\], got \[67\]"),
        ({"landmarks68": np.full(68, COUNT)}, r"expected vertex indices in \[0, 90\)"),
        ({"faces": np.full((5, 3), -1)}, r"faces: expected vertex indices"),
        ({"faces": np.zeros((0, 3), np.int32)}, "got none"),
        ({"identity": np.zeros((4, 89, 3))}, r"identity: expected shape \[any, 90, 3\], got \[4, 89, 3\]"),
        ({"mean": np.array(["x"] * 3)}, "mean: expected numbers"),
        ({"mean": np.full((COUNT, 3), np.nan)}, "mean_shape: expected finite numbers"),
        ({"expression_prior": "gamma"}, "'normal' or 'unit_interval', got 'gamma'"),
        ({"mean_albedo": np.zeros((COUNT, 3))}, "expected the array albedo"),
        ({"landmarks68": np.arange(68) + 0.5}, "landmarks68: expected whole numbers"),
        ({"faces": np.full((5, 3), 1 << 32)}, "faces: expected whole numbers within torch.int32"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **_arrays(**changes))
    with pytest.raises(FocusError, match=message) as caught:
        MorphableModel.load(tmp_path / "a.npz")
    assert "a.npz" in str(caught.value)


def test_faces_that_look_inwards_are_turned(tmp_path: Path) -> None:
    arrays = _arrays()
    np.savez(tmp_path / "a.npz", **{**arrays, "faces": arrays["faces"][:, ::-1]})
    model = MorphableModel.load(tmp_path / "a.npz")
    corners = model.mean_shape[model.faces.long()]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert bool((normals[:, 2] > 0).all())


def test_basel_hdf5(tmp_path: Path) -> None:
    data = _save_basel(tmp_path / "bfm.h5")
    model = MorphableModel.load(tmp_path / "bfm.h5", landmarks68=LANDMARKS)
    mean = (data["shape/model/mean"] + data["expression/model/mean"]).reshape(-1, 3) - (0, 0, 100)
    np.testing.assert_allclose(model.mean_shape, mean, atol=1e-4)
    second = data["shape/model/pcaBasis"][:, 1].reshape(-1, 3) * 4  # variance 16
    np.testing.assert_allclose(model.identity_basis[1], second, rtol=1e-5)
    assert (model.identity_count, model.expression_count, model.albedo_count) == (5, 3, 4)
    assert "redistributed" in model.licence


def test_basel_without_known_landmarks_or_a_dataset(tmp_path: Path) -> None:
    _save_basel(tmp_path / "bfm.h5")
    with pytest.raises(FocusError, match=r"bfm\.h5.*53149.*this has 90"):
        MorphableModel.load(tmp_path / "bfm.h5")
    _save_basel(tmp_path / "part.h5", drop="color/model/pcaVariance")
    with pytest.raises(FocusError, match="dataset color/model/pcaVariance"):
        MorphableModel.load(tmp_path / "part.h5")


def test_basel_landmarks_are_those_of_the_official_code() -> None:
    from focus.face import foreign_loaders

    assert len(foreign_loaders._BASEL_2017_LANDMARKS68) == 68
    assert foreign_loaders._BASEL_2017_LANDMARKS68[33] == foreign_loaders._BASEL_2017_LANDMARKS7[4]


def test_basel_2009(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    vertices, faces = _bumpy_patch()
    generator = np.random.default_rng(2)
    data = {
        "shapeMU": 1000 * vertices.reshape(-1, 1),
        "shapePC": generator.normal(size=(3 * COUNT, 2)),
        "shapeEV": np.array([[3000.0], [1000.0]]),
        "texMU": np.full((3 * COUNT, 1), 127.5),
        "texPC": generator.normal(size=(3 * COUNT, 2)),
        "texEV": np.array([[20.0], [10.0]]),
        "tl": faces + 1,
    }
    scipy_io.savemat(tmp_path / "01_MorphableModel.mat", data)
    model = MorphableModel.load(tmp_path / "01_MorphableModel.mat", landmarks68=LANDMARKS)
    assert float(model.mean_albedo[0, 0]) == 0.5
    np.testing.assert_allclose(model.identity_basis[0].flatten(), 3 * data["shapePC"][:, 0], rtol=1e-5)
    assert model.expression_count == 0
    scipy_io.savemat(tmp_path / "other.mat", {"tl": faces})
    with pytest.raises(FocusError, match=r"other\.mat.*missing: shapeMU"):
        MorphableModel.load(tmp_path / "other.mat")


def test_flame_arrays(tmp_path: Path) -> None:
    vertices, faces = _bumpy_patch()
    directions = np.random.default_rng(3).normal(size=(COUNT, 3, 305)) * 1e-3
    np.savez(tmp_path / "flame.npz", v_template=vertices / 1000, shapedirs=directions, f=faces)
    with pytest.raises(FocusError, match=r"flame\.npz.*landmarks68 of MorphableModel.load, or .*--landmarks68"):
        MorphableModel.load(tmp_path / "flame.npz")
    model = MorphableModel.load(tmp_path / "flame.npz", landmarks68=LANDMARKS)
    assert (model.identity_count, model.expression_count) == (300, 5)
    np.testing.assert_allclose(model.expression_basis[4], directions[:, :, 304] * 1000, rtol=1e-4)
    np.savez(tmp_path / "short.npz", v_template=vertices / 1000, shapedirs=directions[:, :, :10], f=faces)
    with pytest.raises(FocusError, match="shapedirs: expected"):
        MorphableModel.load(tmp_path / "short.npz")


def test_model_rejects_arrays_that_do_not_fit(small_model: MorphableModel) -> None:
    arguments = dict(small_model.named_buffers())
    with pytest.raises(ValueError, match=r"albedo_basis: expected shape"):
        MorphableModel(**{**arguments, "albedo_basis": arguments["albedo_basis"][:, 1:]})
    with pytest.raises(ValueError, match="landmarks7: expected vertex indices"):
        MorphableModel(**{**arguments, "landmarks7": torch.full((7,), 10**6)})
    with pytest.raises(ValueError, match="expression_prior"):
        MorphableModel(**arguments, expression_prior="uniform")  # type: ignore[arg-type]


def test_scan_based_model_of_the_reference_data(shared_dir: Path) -> None:
    path = shared_dir / "models" / "ict" / "ict_face.npz"
    model = MorphableModel.load(path)
    assert model.expression_prior == "unit_interval"
    assert (model.identity_count, model.expression_count) == (100, 53)
    rendering = Renderer(model, 96)(FaceParameters.mean(model))
    x, y = rendering.landmarks[0].round().long().T.clamp(0, 95)
    skin = rendering.image[0, :, (y[30]), x[30]]
    lips = rendering.image[0, :, y[57] - 2, x[57]]
    assert float(skin.mean()) > float(lips.mean())
    assert float(lips[0] / lips[1]) > float(skin[0] / skin[1])
