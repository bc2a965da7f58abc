"""The commands of an install without extras: nothing that they need is missing."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import trimesh

from focus.data import SyntheticFaces, SyntheticSettings, write_image
from focus.face import MorphableModel
from focus.train import shipped_checkpoint

WITHOUT = ("scipy", "networkx", "matplotlib", "h5py", "igl", "tensorboard", "pytest", "hypothesis")
"""Packages of the extras, and those that trimesh can do without."""

SCRIPT = """
import json, sys
from dataclasses import replace
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
from focus.cli import main
from focus.nets import EncoderSettings, NetworkSettings, SegmentationSettings
from focus.train import Settings
from focus.train.config import FaceSettings, LogSettings, StageSettings
small = replace(
    Settings.preset("small"), image_size=32, batch_size=2,
    face=FaceSettings(detail="small", identity=3, expression=2, albedo=2),
    network=NetworkSettings(
        EncoderSettings(block="basic", blocks=(1,), widths=(8,), strides=(2,), stem_width=8, output_width=None),
        SegmentationSettings(filters=(8, 8), dropout=0.0),
    ),
    stages=StageSettings(initialise=1, segmentation=1, joint=1),
    log=LogSettings(validate_every=2, pictures=1),
)
Settings.preset = classmethod(lambda cls, name: small)
for command in json.loads(sys.argv[2]):
    code = main(command)
    if code:
        sys.exit(f"{command}: {code}")
"""


def test_every_command_of_a_plain_install_works(tmp_path: Path) -> None:
    batch = SyntheticFaces(MorphableModel.procedural("small"), 96, 3, SyntheticSettings(occluded_fraction=0)).batch(
        0, 2
    )
    rows = []
    for i in range(2):
        write_image(tmp_path / f"p{i}.png", batch.image[i].permute(1, 2, 0).numpy())
        rows.append(",".join([f"p{i}.png", *map(str, batch.landmarks[i].flatten().tolist())]))
    (tmp_path / "landmarks.csv").write_text("\n".join(rows))
    checkpoint = shipped_checkpoint()
    assert checkpoint is not None
    photo, table = str(tmp_path / "p0.png"), ["--landmarks", str(tmp_path / "landmarks.csv")]
    fit = ["--model", "procedural-small", "--image-size", "48", "--coarse-steps", "1", "--fine-steps", "1"]

    def out(name: str) -> list[str]:
        return ["--out", str(tmp_path / name)]

    commands = [
        ["doctor"],
        ["fit", photo, *table, *fit, *out("fit")],
        ["reconstruct", photo, *table, "--checkpoint", str(checkpoint), *out("reconstruct")],
        ["prepare", str(tmp_path), *table, "--image-size", "32", *out("prepare")],
        ["model", "procedural-small", "--save", str(tmp_path / "face.focusmodel")],
        ["train", "--photos", str(tmp_path), *table, *out("run")],
        ["evaluate", "checkpoints", str(tmp_path / "run" / "last.safetensors"), "--faces", "2", *out("evaluate")],
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), json.dumps(WITHOUT), json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for name in ("fit", "reconstruct"):
        for suffix in (".ply", ".obj", ".glb"):
            mesh = trimesh.load(tmp_path / name / f"p0{suffix}", force="mesh", process=False, skip_materials=True)
            assert len(mesh.faces) > 1000
