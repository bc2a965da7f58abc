"""The network that comes with FOCUS, alone and as the beginning of a fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from focus.cli import main
from focus.data import SyntheticFaces, read_image, write_image
from focus.eval.masks import mask_scores, outlier_iou
from focus.face import Renderer
from focus.fit.region import crop_model, face_region
from focus.train import Settings, load_trained, shipped_checkpoint
from focus.train.checkpoint import load_checkpoint, save_checkpoint

QUICK = ["--coarse-steps", "1", "--fine-steps", "1"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn face with a mask over its mouth; beside it what is seen of it, and it from the jaw to the hairline."""
    folder = tmp_path_factory.mktemp("photo")
    model = Settings.preset("photos").face.build()
    faces = SyntheticFaces(model, 128, 41)
    index = next(index for index in range(200) if faces.samples([index], True)[0].occluder == "surgical_mask")
    sample = faces.samples([index], True)[0]
    write_image(folder / "a.png", sample.image)
    region = Renderer(crop_model(model, face_region(model)), 128)(sample.parameters).mask[0, 0].numpy()
    for name, mask in (("truth", sample.visible_mask), ("face", region > 0)):
        write_image(folder / f"{name}.png", np.where(mask, 255, 0).astype(np.uint8))
    numbers = ",".join(f"{number:.3f}" for number in sample.landmarks.flatten().tolist())
    (folder / "landmarks.csv").write_text(f"a.png,{numbers}\n")
    return folder / "a.png"


def _call(command: str, photo: Path, out: Path, *more: str) -> int:
    return main([command, str(photo), "--landmarks", str(photo.parent / "landmarks.csv"), "--out", str(out), *more])


def _mask(file: Path) -> torch.Tensor:
    return torch.from_numpy(read_image(file)[..., 0].copy())[None, None].float() / 255


def _truth(photo: Path) -> tuple[Path, Path]:
    return photo.parent / "truth.png", photo.parent / "face.png"


def test_the_network_that_comes_with_focus_needs_no_option(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call("reconstruct", photo, tmp_path) == 0
    assert "network: the one that comes with FOCUS" in capsys.readouterr().err
    found, truth, face = (_mask(file) for file in (tmp_path / "a_mask.png", *_truth(photo)))
    assert float(outlier_iou(found, truth, face)) > 0.7
    assert float(mask_scores(found, truth, face).f1) > 0.85


def test_the_network_that_comes_with_focus_is_small_and_has_seen_drawn_faces_alone() -> None:
    path = shipped_checkpoint("photos")
    assert path is not None
    assert path.stat().st_size <= 8_000_000
    trained = load_trained(path)
    assert trained.settings.data.photos is None
    assert trained.settings.teacher == "truth"
    assert trained.checkpoint.header.kind == "inference"
    usual = Settings.preset("photos")
    assert (trained.settings.face, trained.settings.network) == (usual.face, usual.network)


def test_a_fit_begins_where_a_network_says(photo: Path, tmp_path: Path) -> None:
    network = shipped_checkpoint("photos")
    assert _call("fit", photo, tmp_path / "plain", "--model", "procedural-small", *QUICK) == 0
    assert _call("fit", photo, tmp_path / "heard", "--model", "procedural-small", "--start", str(network), *QUICK) == 0
    plain, heard = (json.loads((tmp_path / name / "a.json").read_text()) for name in ("plain", "heard"))
    assert "witness" not in plain["made_from"]
    assert len(heard["made_from"]["witness"]) == 64
    assert not torch.equal(_mask(tmp_path / "plain" / "a_mask.png"), _mask(tmp_path / "heard" / "a_mask.png"))
    assert _call("reconstruct", photo, tmp_path / "refined", "--refine") == 0
    refined = json.loads((tmp_path / "refined" / "a.json").read_text())
    assert refined["made_from"]["witness"] == heard["made_from"]["witness"]
    assert len(refined["coefficients"]["identity"]) == 80, "the whole model"


def test_networks_that_cannot_be_heard_are_refused(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = shipped_checkpoint("photos")
    assert network is not None
    shipped = load_checkpoint(network)
    half = {name: value for name, value in shipped.tensors.items() if not name.startswith("segmentation")}
    save_checkpoint(tmp_path / "half.safetensors", shipped.header, half)
    assert _call("fit", photo, tmp_path / "out", "--start", str(tmp_path / "half.safetensors")) == 2
    assert "half.safetensors: has no segmentation network" in capsys.readouterr().err
    assert _call("reconstruct", photo, tmp_path / "out", "--refine", "--misfit", "misfit.safetensors") == 2
    assert "--refine" in capsys.readouterr().err
    assert not (tmp_path / "out" / "a.json").exists()
