"""What only a card can say: whether its results are those of the CPU kernels, and how long its own work takes.

    python benchmarks/on_card.py about        # card, driver, bandwidth of a copy
    python benchmarks/on_card.py check        # results
    python benchmarks/on_card.py times        # of the card, without those of the host
    python benchmarks/on_card.py rivals       # torch, and nvdiffrast where it is installed

Each result is a line of JSON, written at once to the file that --out names (and to the terminal): what ends the program
loses none. A check that fails is a line, too; the exit status says so at the end. --device cpu rehearses all of it,
--quick on tiny inputs. scripts/gpu_check.sh calls it.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_antialias
import bench_interpolate
import bench_outlier_robust
import bench_rasterize
import bench_render
import bench_sh_shading
import bench_vertex_normals
import torch
from _harness import Results
from _images import PLANES, loss_work
from _meshes import Mesh, Work, head, standard

from focus import _C, ops

ON_MESHES: dict[str, Work] = {
    "rasterize": bench_rasterize.forward_and_backward,
    "interpolate": bench_interpolate.forward_and_backward,
    "render": bench_render.fused,
    "antialias": bench_antialias.forward_and_backward,
    "vertex_normals": bench_vertex_normals.forward_and_backward,
    "sh_shading": bench_sh_shading.forward_and_backward,
    "posed, lit and drawn": bench_render.whole,
}
LOSSES: dict[str, Callable[[Any], Callable[..., torch.Tensor]]] = {
    "neighbor_min_loss": lambda module: module.neighbor_min_loss,
    "masked_photometric_loss": lambda module: module.masked_photometric_loss,
    "outlier_robust_loss": bench_outlier_robust.loss_of,
}
_LARGER_THAN_CACHES = 256 << 20
"""Bytes that are read between two timed calls: more than the second-level cache of any card."""
_CALLS_IN_A_GRAPH = 10


@dataclass
class Report:
    """Lines of JSON in a file."""

    path: Path | None
    failed: bool = False

    def line(self, what: str, **values: Any) -> None:
        """Writes one, at once."""
        text = json.dumps({"what": what, **values})
        print(text, flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(text + "\n")

    def check(self, what: str, work: Callable[[], str | None]) -> None:
        """A line for a check: `work` returns what is wrong."""
        try:
            wrong = work()
        except Exception:
            wrong = traceback.format_exc(limit=3)
        self.failed |= wrong is not None
        self.line(what, good=wrong is None, **({} if wrong is None else {"wrong": wrong}))


def _mesh(quick: bool, batch: int) -> Mesh:
    return head(6, 8, batch, 16) if quick else standard(batch)


def _works(device: torch.device, quick: bool, batch: int) -> dict[str, tuple[Results, Callable[[], Results]]]:
    """What each operator reads, and what does forward and backward."""
    mesh = _mesh(quick, batch)
    works = {name: work(ops, mesh, device) for name, work in ON_MESHES.items()}
    side = 16 if quick else 224
    return works | {name: loss_work(of(ops), batch, side, device) for name, of in LOSSES.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def about(report: Report, device: torch.device, quick: bool) -> None:
    """Versions, the card, and how fast it copies."""
    report.line("versions", torch=torch.__version__, torch_cuda=torch.version.cuda, focus_cuda=_C.cuda_version)
    report.line("build", architectures=_C.cuda_architectures, compiler=_C.compiler, driver=_C.cuda_driver())
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        report.line(
            "card",
            name=properties.name,
            gigabytes=round(properties.total_memory / 2**30),
            capability=f"{properties.major}.{properties.minor}",
            multiprocessors=properties.multi_processor_count,
        )
        fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
        said = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
        )
        report.line("nvidia-smi", fields=fields, said=said.stdout.strip())
    report.line("copy", gigabytes_per_second=_copy_rate(device, quick))


def _copy_rate(device: torch.device, quick: bool) -> float:
    """Bytes read and written in a second, in billions, by a copy of four billion."""
    source = torch.ones(1_000_000 if quick else 1_000_000_000, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e6 / _milliseconds(lambda: (target.copy_(source),), device, quick)


def check(report: Report, device: torch.device, quick: bool) -> None:
    """Against the CPU kernels, again, in memory that is not clean, on another stream, captured, compiled."""
    batches = (2,) if quick else (12, 64)
    for batch in batches:
        here, there = _works(torch.device("cpu"), quick, batch), _works(device, quick, batch)
        for name, (_, work) in there.items():
            report.check(f"{name}, batch {batch}, as the CPU", functools.partial(_differs, name, work, here[name][1]))
            report.check(f"{name}, batch {batch}, again", functools.partial(_changes, work, work))
    works = _works(device, quick, batches[0])
    for name, (_, work) in works.items():
        report.check(
            f"{name}, memory filled with NaN",
            functools.partial(_changes, work, functools.partial(_in_filled_memory, work)),
        )
        if device.type == "cuda":
            report.check(
                f"{name}, second stream", functools.partial(_changes, work, functools.partial(_on_stream, work, device))
            )
            report.check(f"{name}, captured", functools.partial(_changes, work, functools.partial(_captured, work)))
    report.check("antialias compiled, with a new Topology and with plain faces", functools.partial(_compiles, device))


def _differs(name: str, work: Callable[[], Results], on_cpu: Callable[[], Results]) -> str | None:
    """Values in every bit, but for losses; gradients, which CUDA adds in another order, to 1e-5 of their length."""
    for position, (actual, expected) in enumerate(zip(work(), on_cpu(), strict=True)):
        found = actual.detach().cpu()
        if position == 0 and found.dim() > 0 and not torch.equal(found, expected):
            return f"result 0 differs in {int((found != expected).sum())} of {found.numel()} values"
        error = float((found.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-30))
        if not error <= 1e-5:
            return f"result {position} differs by {error:.1e} of its length"
    return None


def _changes(work: Callable[[], Results], other: Callable[[], Results]) -> str | None:
    for position, (first, second) in enumerate(zip(work(), other(), strict=True)):
        if not torch.equal(first, second):
            return f"result {position} has other bits"
    return None


def _in_filled_memory(work: Callable[[], Results]) -> Results:
    before, filled = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        return work()
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


def _on_stream(work: Callable[[], Results], device: torch.device) -> Results:
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        results = work()
    torch.cuda.current_stream(device).wait_stream(stream)
    return results


def _captured(work: Callable[[], Results]) -> Results:
    graph, results = _capture(work, 1)
    graph.replay()
    torch.cuda.synchronize()
    return results


def _capture(work: Callable[[], Results], calls: int) -> tuple[torch.cuda.CUDAGraph, Results]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # warm up, as torch asks for it
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            results = work()
    return graph, results


def _compiles(device: torch.device) -> str | None:
    square = torch.tensor([[[-1.0, -1.0, 5.0], [1.75, -1.0, 5.0], [1.75, 9.0, 5.0], [-1.0, 9.0, 5.0]]], device=device)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], device=device)
    _, mask, face_index = ops.render(square, torch.ones(1, 4, 1, device=device), faces, (1, 4))
    for mesh in (ops.Topology(faces, 4), faces):
        torch._dynamo.reset()
        compiled = torch.compile(functools.partial(ops.antialias, faces=mesh), fullgraph=True, backend="aot_eager")
        if compiled(mask, square, face_index=face_index).flatten().tolist() != [1.0, 1.0, 0.25, 0.0]:
            return "other values"
    return None


def times(report: Report, device: torch.device, quick: bool) -> None:
    """Milliseconds of the card for a call, by graph replay, beside what a call takes with the host's part."""
    try:
        rate: float | None = _copy_rate(device, quick)
    except Exception as error:  # no room for it, say: times are worth having without it
        rate = None
        report.line("copy", wrong=str(error))
    else:
        report.line("copy", gigabytes_per_second=rate)
    mesh_batch, loss_batches = (2, (2,)) if quick else (12, (12, 256))
    mesh = _mesh(quick, mesh_batch)
    for name, work in ON_MESHES.items():
        inputs, run = work(ops, mesh, device)
        moved = sum(tensor.nbytes for tensor in (*inputs, mesh.faces.int(), *run()))
        _time(report, f"{name}, forward + backward", mesh.size, run, moved, rate, device, quick)
    for name, of in LOSSES.items():
        for batch in loss_batches:
            side = 16 if quick else 224
            _, run = loss_work(of(ops), batch, side, device)
            moved = round(PLANES[name] * 4 * batch * side * side)
            _time(report, f"{name}, forward + backward", f"{batch}x3x{side}x{side}", run, moved, rate, device, quick)
    if device.type == "cuda":
        _kernels(report, mesh, device)


def _time(
    report: Report,
    name: str,
    size: str,
    work: Callable[[], Results],
    moved: int,
    rate: float | None,
    device: torch.device,
    quick: bool,
) -> None:
    def measure() -> str | None:
        report.line(f"{name}, with the host", size=size, ms=_with_host(work, device, quick))
        own = _milliseconds(work, device, quick)
        report.line(name, size=size, ms=own, moved_bytes=moved, of_copy=rate and moved / 1e6 / own / rate)
        return None

    report.check(f"{name}, {size}, timed", measure)


def _milliseconds(work: Callable[[], object], device: torch.device, quick: bool) -> float:
    """Median of one call, without the host: on CUDA a graph of calls, before each of which something else is read into
    the caches, less a graph of what is read alone."""
    repeats = 1 if quick else 30
    if device.type != "cuda":
        work()
        return statistics.median(_seconds(work, 1) * 1e3 for _ in range(repeats if quick else 5))
    rubbish, largest = torch.ones(_LARGER_THAN_CACHES // 4, device=device), torch.empty((), device=device)

    def read() -> Results:
        return (torch.amax(rubbish, 0, out=largest),)

    def replayed(calls: Callable[[], Results]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph, _ = _capture(calls, _CALLS_IN_A_GRAPH)
        found = []
        for _ in range(repeats):
            begin.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize(device)
            found.append(begin.elapsed_time(end))
        return statistics.median(found)

    return (replayed(lambda: (*read(), work())) - replayed(read)) / _CALLS_IN_A_GRAPH  # type: ignore[arg-type,return-value]


def _with_host(work: Callable[[], object], device: torch.device, quick: bool) -> float:
    calls = 1 if quick else 200 if device.type == "cuda" else 3
    work()
    _wait(device)
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    _wait(device)
    return 1e3 * (time.perf_counter() - begin) / calls


def _seconds(work: Callable[[], object], calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begin) / calls


def _kernels(report: Report, mesh: Mesh, device: torch.device) -> None:
    """Microseconds of each kernel of a call."""
    works = {name: work(ops, mesh, device)[1] for name, work in ON_MESHES.items()}
    works |= {name: loss_work(of(ops), 256, 224, device)[1] for name, of in LOSSES.items()}

    def profile(name: str, work: Callable[[], Results]) -> str | None:
        work()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
            for _ in range(5):
                work()
            _wait(device)
        kernels = {
            event.key: round(event.self_device_time_total / 5, 2)
            for event in found.key_averages()
            if event.self_device_time_total > 0
        }
        report.line(f"kernels of {name}, us", **dict(sorted(kernels.items(), key=lambda item: -item[1])[:12]))
        return None

    for name, work in works.items():
        report.check(f"kernels of {name}", functools.partial(profile, name, work))


def rivals(report: Report, device: torch.device, quick: bool) -> None:
    """The losses by torch, eager and compiled, and a mesh by nvdiffrast, each checked against ours first."""
    batch, side = (2, 16) if quick else (12, 224)
    for name, of in LOSSES.items():
        ours, twin = (loss_work(of(module), batch, side, device)[1] for module in (ops, ops.reference))
        own = _milliseconds(ours, device, quick)

        def compare(
            label: str, other: Callable[[], Results], ours: Any = ours, name: str = name, own: float = own
        ) -> str | None:
            for first, second in zip(ours(), other(), strict=True):
                if not float((first - second).norm()) <= 1e-4 * float(first.norm()):
                    return "other values than ours"
            theirs = _milliseconds(other, device, quick)
            report.line(
                f"{name}: {label}", size=f"{batch}x3x{side}x{side}", ours_ms=own, theirs_ms=theirs, ratio=theirs / own
            )
            return None

        report.check(f"{name}: torch, eager", functools.partial(compare, "torch, eager", twin))
        torch._dynamo.reset()
        compiled = loss_work(torch.compile(of(ops.reference)), batch, side, device)[1]
        report.check(f"{name}: torch.compile", functools.partial(compare, "torch.compile", compiled))
    if device.type == "cuda" and importlib.util.find_spec("nvdiffrast") is not None:
        report.check("nvdiffrast", lambda: _nvdiffrast(report, device))
    else:
        report.line("nvdiffrast", there=False)


def _nvdiffrast(report: Report, device: torch.device) -> str | None:
    """rasterize + interpolate, forward and backward, of the standard mesh twelve times."""
    dr = importlib.import_module("nvdiffrast.torch")
    mesh = standard(12)
    _, ours = bench_render.separate(ops, mesh, device)
    context = dr.RasterizeCudaContext(device)
    size, faces = mesh.image, mesh.faces.int().to(device)
    vertices = mesh.vertices.to(device)
    x = (vertices[..., 0] + 0.5) / size * 2 - 1
    y = (vertices[..., 1] + 0.5) / size * 2 - 1
    clip = torch.stack([x, y, vertices[..., 2] / 1e4, torch.ones_like(x)], -1).requires_grad_()
    attributes = mesh.random(device, vertices.shape[1], 3).requires_grad_()
    weights = mesh.random(device, 3, size, size).permute(0, 2, 3, 1).contiguous()

    def theirs() -> Results:
        found, _ = dr.rasterize(context, clip, faces, (size, size))
        image, _ = dr.interpolate(attributes, found, faces)
        return image.detach(), *torch.autograd.grad(image, (clip, attributes), weights)

    image, same = theirs()[0].permute(0, 3, 1, 2), ours()[0]
    inside = float(((image - same).abs().amax(1) < 0.02).float().mean())
    if inside < 0.97:  # they differ on outlines, where rules and precision do
        return f"the images agree on {inside:.1%} of the pixels only"
    own, other = (_with_host(work, device, False) for work in (ours, theirs))
    report.line(
        "nvdiffrast, rasterize + interpolate",
        size=mesh.size,
        ours_ms=own,
        theirs_ms=other,
        ratio=other / own,
        agree=inside,
    )
    return None


STAGES = {"about": about, "check": check, "times": times, "rivals": rivals}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=tuple(STAGES))
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--out", type=Path, help="file that lines are added to")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, once: does it run?")
    options = parser.parse_args(arguments)
    report = Report(options.out)
    STAGES[options.stage](report, options.device, options.quick)
    if report.failed:
        raise SystemExit(f"{options.stage}: something is wrong; see the lines that are not good")


if __name__ == "__main__":
    main()
