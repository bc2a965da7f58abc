"""`focus demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from rich.text import Text

from focus.bounds import SCALE, SEED, WORKERS
from focus.cli.command import Command, Outcome, parse_as, say, shown_progress
from focus.demo import TEST_FACES, DemoResult, DemoSettings, run_demo
from focus.errors import FocusError
from focus.eval.claims import check_claims
from focus.report.results import read_sealed, write_json, write_text
from focus.report.tables import average, findings_markdown, findings_table, markdown_table, terminal_table
from focus.train.config import Settings


@dataclass(kw_only=True)
class Demo(Command):
    """Train four methods live on synthetic faces, compare them, and write a report."""

    out: Path
    """Folder of the results: metrics.json, per_image.json, report.html, faces.png, and the runs in training/."""
    seed: Annotated[int, SEED] = 0
    """Of all faces; test faces are never training faces."""
    seeds: Annotated[tuple[int, ...], SEED] = ()
    """Several runs one after the other, in folders seed-N, and their results together in results.md."""
    initial: Path | None = None
    """Checkpoint that all methods start from; by default the one that ships with the package."""
    scale: Annotated[float, SCALE] = 1.0
    """Factor on the iterations of all methods: 0.1 for a quick look, with weak results."""
    test_faces: Annotated[int, TEST_FACES] = 500
    """Faces of the test set; each is seen once with and once without an occluder."""
    workers: Annotated[int | None, WORKERS] = None
    """Methods that train at a time; by default one for each core."""
    device: str = "cpu"
    """Where to train: cpu, cuda or auto."""

    def run(self) -> Outcome:
        """Runs the demo for every seed."""
        seeds = self.seeds or (self.seed,)
        if len(set(seeds)) != len(seeds):
            raise FocusError(f"focus demo: --seeds: expected different seeds, got {seeds}")
        outcome = Outcome()
        self.so_far = lambda: outcome
        results = []
        for seed in seeds:
            folder = self.out / f"seed-{seed}" if self.seeds else self.out
            results.append(self._run(folder, seed))
            outcome.written += results[-1].written
        metrics = average([result.metrics["methods"] for result in results])
        findings = results[0].findings
        if len(results) > 1:
            findings = check_claims([read_sealed(path) for path in outcome.written if path.name == "per_image.json"])
            text = f"{markdown_table(metrics)}\n{findings_markdown(findings)}"
            outcome.written.append(write_text(self.out / "results.md", text))
            details = {"seeds": list(seeds), "methods": metrics, "claims": [found.as_dict() for found in findings]}
            outcome.written.append(write_json(self.out / "results.json", details))
        minutes = sum(result.minutes for result in results)
        outcome.shown = [terminal_table(metrics), Text(), findings_table(findings), Text(f"\n{minutes:.1f} minutes")]
        outcome.details = {
            **(results[0].metrics if len(results) == 1 else {"seeds": list(seeds), "methods": metrics}),
            "claims": [found.as_dict() for found in findings],
            "minutes": minutes,
        }
        return outcome

    def _run(self, folder: Path, seed: int) -> DemoResult:
        training = replace(Settings.preset("small").scaled(self.scale), device=self.device)
        settings = DemoSettings(
            out=folder,
            seed=seed,
            initial=self.initial,
            test_faces=self.test_faces,
            workers=self.workers,
            training=training,
        )
        with shown_progress() as progress:
            return run_demo(settings, progress=progress, message=say)


def parse(arguments: Sequence[str]) -> Demo:
    """Options of `focus demo`."""
    return parse_as(Demo, "demo", arguments)
