"""Networks for programs without FOCUS say what the networks say, and need neither torch nor FOCUS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import focus.train.portable as portable
from focus.cli import main
from focus.data.images import write_image
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.face import Renderer
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Networks, Settings, shipped_checkpoint
from focus.train.checkpoint import Header, Trained, load_trained, save_checkpoint
from focus.train.config import FaceSettings, StageSettings
from focus.train.portable import Format, export_portable

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = replace(
    Settings.preset("small"),
    image_size=33,  # no multiple of anything
    face=FaceSettings(detail="small", identity=4, expression=2, albedo=3),
    network=NetworkSettings(
        EncoderSettings(block="basic", blocks=(1,), widths=(8,), strides=(2,), stem_width=8, output_width=None),
        SegmentationSettings(filters=(8, 16), dropout=0.5),
    ),
    stages=StageSettings(initialise=1, segmentation=1, joint=0),
)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Trained]:
    """Random networks whose normalisation has seen something."""

    def make(settings: Settings = SETTINGS, step: int = 2) -> Trained:
        model = settings.face.build()
        torch.manual_seed(0)
        networks = Networks.build(settings, model)
        for _, network in networks.items():
            for name, buffer in network.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.uniform_(0.5, 2.0)
        torch.nn.init.normal_(networks.reconstruction.trunk.fc.weight, std=0.1)
        tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state_dict().items()}
        header = Header(
            settings=settings.to_dict(), model_name=model.name, model_fingerprint=model.fingerprint(), step=step
        )
        return load_trained(save_checkpoint(tmp_path / "last.safetensors", header, tensors))

    return make


@pytest.fixture(params=["onnx", "torch"])
def kind(request: pytest.FixtureRequest) -> Format:
    if request.param == "onnx":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    found: Format = request.param
    return found


@pytest.mark.parametrize("paste", [False, True])
def test_both_networks_are_written_and_checked(
    trained: Callable[..., Trained], tmp_path: Path, kind: Format, paste: bool
) -> None:
    network = replace(SETTINGS.network, segmentation=replace(SETTINGS.network.segmentation, paste=paste))
    found = trained(replace(SETTINGS, network=network))
    before = found.networks.segmentation.channels_last
    written = export_portable(found, tmp_path / "out", kind)
    suffix = {"onnx": "onnx", "torch": "pt2"}[kind]
    names = ["about.json", "face.npz", f"reconstruction.{suffix}", f"segmentation.{suffix}"]
    assert sorted(path.name for path in written) == sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert found.networks.segmentation.channels_last == before
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["image_size"] == 33
    assert about["model"] == found.model.name
    arrays = np.load(tmp_path / "out" / "face.npz")
    assert np.array_equal(arrays["faces"], found.model.faces.numpy())
    assert arrays["identity_basis"].shape == tuple(found.model.identity_basis.shape)
    if kind == "torch":
        program = torch.export.load(tmp_path / "out" / "segmentation.pt2").module()
        images = [torch.rand(5, channels, 33, 33) for channels in (3, 3, 1)]
        with torch.no_grad():
            assert (program(*images) - found.networks.segmentation(*images)).abs().max() < 1e-4


def test_a_network_that_has_not_learnt_is_left_out(
    trained: Callable[..., Trained], tmp_path: Path, kind: Format
) -> None:
    written = export_portable(trained(step=1), tmp_path / "out", kind)
    assert not any(path.stem == "segmentation" for path in written)


def test_what_says_something_else_is_not_written(
    trained: Callable[..., Trained], tmp_path: Path, kind: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = portable._exported

    def wrong(*given: object) -> object:
        data, run = exported(*given)  # type: ignore[arg-type]
        return data, lambda *values: [value + 2e-4 for value in run(*values)]

    monkeypatch.setattr(portable, "_exported", wrong)
    with pytest.raises(FocusError, match=r"reconstruction: the exported network says something else .* 0.0002"):
        export_portable(trained(), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(
    trained: Callable[..., Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FocusError, match=r'pip install "focus-face\[export\]"'):
        export_portable(trained(), tmp_path / "out")


def test_the_example_runs_without_torch(tmp_path: Path) -> None:
    """With the network that comes with FOCUS: masks as by the networks themselves, though the face is painted."""
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module)
    shipped = shipped_checkpoint("photos")
    if shipped is None:
        pytest.skip("no network comes with this build")
    assert main(["export", "--out", str(tmp_path / "onnx")]) == 0
    trained = load_trained(shipped)
    size = trained.settings.image_size
    faces = SyntheticFaces(trained.model, size, seed=7).batch(0, 2, occluded=True)
    with torch.no_grad():
        drawn = Renderer(trained.model, size)(trained.networks.eval().reconstruction(faces.image))
        masks = trained.networks.segmentation(drawn.image, faces.image, drawn.mask) * drawn.mask
    # Neither can be imported there.
    for name in ("torch", "focus"):
        (tmp_path / f"{name}.py").write_text("raise ImportError")
    for index in range(2):
        pixels = (faces.image[index].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        crop = write_image(tmp_path / f"{index}.png", pixels)
        command = [sys.executable, str(ROOT / "examples" / "onnx_without_torch.py"), "onnx", str(crop), "mask.png"]
        environment = {"PATH": "", "PYTHONPATH": str(tmp_path)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found, expected = np.asarray(Image.open(tmp_path / "mask.png")) > 127, masks[index, 0].numpy() > 0.5
        assert (found & expected).sum() / (found | expected).sum() > 0.9
