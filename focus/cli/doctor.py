"""`focus doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from focus._compiled import card_obstacle, load
from focus._version import __version__
from focus.cli.command import Command, Outcome, parse_as
from focus.errors import FocusError

_PACKAGES = ("torch", "numpy", "pillow", "safetensors", "tyro", "rich", "imageio", "trimesh")
_OPTIONAL = {
    "h5py": "bfm",
    "scipy": "evaluate",
    "tensorboard": "train",
    "matplotlib": "report",
    "igl": "evaluate",
    "aiohttp": "shards",
    "onnx": "export",
}
_TOLERANCE = 1e-4
"""Largest relative difference between an operator and its twin; sums of float32 in another order stay below 1e-5."""
_ROOM = 2 << 30
"""Bytes that a run of the demo and its environment may take."""

State = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: State
    text: str


@dataclass(kw_only=True)
class Doctor(Command):
    """Check this installation: versions, CUDA, operators, disk."""

    def run(self) -> Outcome:
        """Runs all checks; one that is bad makes the command fail."""
        checks = [*_versions(), *_compiled(), *_operators(), *_checkpoints(), *_disk()]
        table = Table(box=None, pad_edge=False, show_header=False)
        colors = {"good": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "bad": "[red]bad[/red]"}
        for check in checks:
            table.add_row(colors[check.state], check.name, Text(check.text))
        return Outcome(
            shown=[table],
            details={"checks": [vars(check) for check in checks]},
            good=all(check.state != "bad" for check in checks),
        )


def _versions() -> list[Check]:
    found = [Check("focus", "good", f"{__version__} in {Path(__file__).resolve().parents[1]}")]
    found.append(Check("python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}"))
    for name in _PACKAGES:
        try:
            found.append(Check(name, "good", version(name)))
        except PackageNotFoundError:
            found.append(Check(name, "bad", "not installed; reinstall focus-face"))
    for name, extra in _OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        missing = f'not installed; for it: pip install "focus-face[{extra}]"'
        found.append(Check(name, "good" if there else "note", _version(name) if there else missing))
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "installed"


def _compiled() -> list[Check]:
    try:
        import torch

        compiled = load()
    except ImportError as error:
        return [Check("compiled module", "bad", str(error))]
    architectures = str(compiled.cuda_architectures or "")
    if compiled.cuda_version:
        kernels = f"CUDA {compiled.cuda_version}, architectures {architectures}"
    else:
        kernels = f"CPU only ({compiled.cuda_missing})"
    found = [Check("compiled module", "good", f"{kernels}; compiler {compiled.compiler}")]
    found.append(Check("torch's CUDA", "good", torch.version.cuda or "none: a CPU build"))
    if not torch.cuda.is_available():
        found.append(Check("graphics card", "note", "torch sees none; everything runs on the CPU"))
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        text = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {properties.major}.{properties.minor}"
        if compiled.cuda_version is None:
            text += f"; this build has no CUDA kernels ({compiled.cuda_missing}): mend that and build again"
        state: State = "note" if compiled.cuda_version is None else "good"
        if compiled.cuda_version:
            capability = (properties.major, properties.minor)
            obstacle = card_obstacle(compiled.cuda_version, compiled.cuda_driver() or None, architectures, capability)
            if obstacle:
                state, text = "bad", f"{text}; {obstacle}"
        found.append(Check(f"graphics card {index}", state, text))
    return found


def _operators() -> list[Check]:
    try:
        import torch

        compiled = load()
    except ImportError:
        return []
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() and compiled.cuda_version else [])
    found = []
    for device in devices:
        try:
            differences = operator_differences(torch.device(device))
        except Exception as error:
            found.append(Check(f"operators, {device}", "bad", f"{type(error).__name__}: {error}"))
            continue
        worst = max(differences, key=lambda name: differences[name])
        good = differences[worst] <= _TOLERANCE
        text = (
            f"{len(differences)} agree with their twins; largest relative difference {differences[worst]:.1e} ({worst})"
        )
        if not good:
            text = f"{worst} differs from its twin by {differences[worst]:.1e}, more than {_TOLERANCE:g}"
        found.append(Check(f"operators, {device}", "good" if good else "bad", text))
    return found


def operator_differences(device: Any) -> dict[str, float]:
    """Every operator against its twin in plain torch, on a bump of 242 triangles.

    Returns:
        Operator -> largest difference, relative to the largest value.
    """
    import torch

    from focus import ops
    from focus.face import Camera
    from focus.face.lighting import directional_lighting

    count, size = 12, (24, 24)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(80, -80, count), torch.linspace(-80, 80, count), indexing="ij")
    vertices = torch.stack((x, y, 60 - (x**2 + y**2) / 150), dim=-1).reshape(1, -1, 3).to(device)
    corner = (torch.arange(count - 1)[:, None] * count + torch.arange(count - 1)).reshape(-1, 1)
    faces = torch.cat([corner + torch.tensor(part) for part in ((0, count, 1), (1, count, count + 1))]).to(device)
    placed = Camera.transform(vertices, torch.tensor([[0.1, 0.4, 0.2]], device=device), vertices.new_zeros(1, 3))
    screen = Camera(size[0]).project(placed)
    albedo = torch.rand(1, count**2, 3, generator=generator).to(device)
    light = directional_lighting(*(vertices.new_tensor([v]) for v in ([-1.0, -1.0, -1.0], [0.8] * 3, [0.3] * 3)))
    target, image = (torch.rand(1, 3, *size, generator=generator).to(device) for _ in range(2))
    mask = torch.rand(1, 1, *size, generator=generator).to(device)
    near = image + 0.05 * (target - image)  # within the noise of the robust loss
    fragments = ops.rasterize(screen, faces, size)
    drawn, _, shown = ops.render(screen, albedo, faces, size)
    normals = ops.vertex_normals(placed, faces)
    calls: dict[str, Callable[[Any], Any]] = {
        "rasterize": lambda o: o.rasterize(screen, faces, size).barycentric,
        "interpolate": lambda o: o.interpolate(albedo, faces, fragments),
        "render": lambda o: o.render(screen, albedo, faces, size)[0],
        "antialias": lambda o: o.antialias(drawn, screen, faces, shown),
        "vertex_normals": lambda o: o.vertex_normals(placed, faces),
        "sh_shading": lambda o: o.sh_shading(normals, albedo, light),
        "neighbor_min": lambda o: o.neighbor_min(target, image, mask),
        "neighbor_min_loss": lambda o: o.neighbor_min_loss(target, image, mask),
        "masked_photometric_loss": lambda o: o.masked_photometric_loss(target, image, mask),
        "outlier_robust_loss": lambda o: o.outlier_robust_loss(near, image, mask)[0],
    }
    result = {}
    for name, call in calls.items():
        ours, twin = call(ops), call(ops.reference)
        result[name] = float((ours - twin).abs().max() / twin.abs().max().clamp(min=1e-6))
    return result


def _checkpoints() -> list[Check]:
    """Of the networks that come with FOCUS."""
    found = []
    for label, name, without in _SHIPPED:
        try:
            from focus.train import load_trained, shipped_checkpoint

            path = shipped_checkpoint(name)
            if path is None:
                found.append(Check(label, "note", f"not in this build; {without}"))
                continue
            trained = load_trained(path)
        except (ImportError, FocusError) as error:
            found.append(Check(label, "bad", str(error)))
            continue
        size = path.stat().st_size / 2**20
        text = f"{size:.1f} MiB, {trained.model.name}, step {trained.checkpoint.header.step}"
        found.append(Check(label, "good", text))
    return found


_SHIPPED: tuple[tuple[str, Literal["initial_small", "photos"], str], ...] = (
    ("initial checkpoint", "initial_small", "focus demo will train a short one"),
    ("network for photos", "photos", "focus reconstruct needs --checkpoint"),
)


def _disk() -> list[Check]:
    found = []
    for name, folder in (("disk, here", Path.cwd()), ("disk, temporary", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        text = f"{free / 2**30:.1f} GiB free in {folder}"
        found.append(Check(name, "good" if free >= _ROOM else "note", text))
    if sys.maxsize < 2**32:
        found.append(Check("memory", "bad", "a 32-bit Python; FOCUS needs a 64-bit one"))
    return found


def parse(arguments: Sequence[str]) -> Doctor:
    """Options of `focus doctor`."""
    return parse_as(Doctor, "doctor", arguments)
