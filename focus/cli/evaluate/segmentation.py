"""`focus evaluate segmentation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table
from rich.text import Text

from focus.cli.command import Command, Outcome, bars, named_values, parse_as
from focus.cli.evaluate.checkpoints import load_alike, names_of, title_of
from focus.demo import shipped_checkpoint
from focus.demo.jobs import method_of
from focus.demo.provenance import commit
from focus.errors import FocusError
from focus.eval import Method, evaluate
from focus.eval.benchmark import MaskRule, robust_rule, skin_rule, whole_face
from focus.eval.comparison import by_occluder
from focus.eval.mask_files import check_masks, folder_rule, picture_stem
from focus.eval.results import Result, append_results, from_evaluation
from focus.eval.testset import SUBSETS, VERSION, benchmark_faces, digest
from focus.report.results import write_json, write_text
from focus.train import Trained
from focus.train.run import pick_device

_SCORES = ("accuracy", "precision", "recall", "f1")
_TITLES = ("ACC", "PPV", "TPR", "F1")


@dataclass(kw_only=True)
class Segmentation(Command):
    """Masks of the face against the truth, on the fixed test set (Table 1 of the paper)."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Trained networks, each with its own reconstruction and mask."""
    initial: Path | None = None
    """Network whose reconstructions the rules without a network of their own are given; by default the shipped one."""
    faces: int = 500
    """Of each subset; each is seen once with and once without an occluder."""
    subsets: tuple[str, ...] = SUBSETS
    """Of the test set."""
    masks: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=FOLDER, once for each program whose masks, FOLDER/SUBSET/PICTURE.png, are scored; see focus evaluate
    pictures.
    """
    seed: int = 0
    """0 is the test set; others are for choosing settings."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path
    """Folder for results.jsonl (added to what is there), segmentation.json and segmentation.md."""

    def run(self) -> Outcome:
        """Scores rules, networks and folders of masks, subset by subset."""
        device = pick_device(self.device)
        initial = self.initial or shipped_checkpoint()
        if initial is None:
            raise FocusError("focus evaluate segmentation: this build ships no network; hand one in with --initial")
        first, *others = load_alike([initial, *self.checkpoints], device)
        # Reconstructions of another network make other results, under names of their own.
        suffix = "" if self.initial is None else f" on {'/'.join(self.initial.parts[-2:])}"
        methods = _rules(first, suffix)
        names = names_of(others)
        methods += [method_of(trained, name) for trained, name in zip(others, names, strict=True)]
        taken = [*(method.name for method in methods), *map(title_of, others)]
        folders = {name: Path(folder) for name, folder in named_values("masks", self.masks).items()}
        for name in folders:
            if name + suffix in taken:
                raise FocusError(f"--masks: {name} is a row already ({', '.join(taken)}); choose another name")
        sets = {s: benchmark_faces(first.model, first.settings.image_size, s, self.seed) for s in self.subsets}
        for subset, faces in sets.items():
            stems = [picture_stem(name, half) for half in (True, False) for name in faces.names(0, self.faces)]
            for name, folder in folders.items():
                check_masks(name, folder / subset, stems, faces.image_size)
        results: list[Result] = []
        with bars() as update:
            for subset, faces in sets.items():
                own = [
                    Method(name + suffix, first.networks.reconstruction, folder_rule(folder / subset))
                    for name, folder in folders.items()
                ]
                evaluation = evaluate(
                    [*methods, *own],
                    faces,
                    self.faces,
                    device=device,
                    progress=lambda done, total, name=subset: update(name, done, total, ""),  # type: ignore[misc]
                )
                results += from_evaluation(
                    evaluation,
                    seed=0,
                    subset=subset,
                    version=VERSION,
                    digest=digest(faces, self.faces),
                    commit=commit(),
                )
        # One method trained with several seeds keeps its name: the seeds tell its results apart.
        runs = [(title_of(trained), trained.settings.seed) for trained in others]
        known = {name: run if runs.count(run) == 1 else (name, run[1]) for name, run in zip(names, runs, strict=True)}
        for number, result in enumerate(results):
            method, seed = known.get(result.method, (result.method, 0))
            results[number] = replace(result, method=method, seed=seed)
        outcome = Outcome(read=[str(initial), *map(str, self.checkpoints), *map(str, folders.values())])
        for subset in self.subsets:
            chosen = [result for result in results if result.subset == subset]
            outcome.shown += [Text(subset, style="bold"), _table(chosen), Text()]
        outcome.details = {"subsets": {s: _details([r for r in results if r.subset == s]) for s in self.subsets}}
        outcome.written = [
            append_results(self.out / "results.jsonl", results),
            write_json(self.out / "segmentation.json", outcome.details),
            write_text(self.out / "segmentation.md", _markdown(outcome.details["subsets"])),
        ]
        return outcome


def _rules(trained: Trained, suffix: str) -> list[Method]:
    """What needs no segmentation network, all with the same reconstructions."""
    network, robust = trained.networks.reconstruction, trained.settings.robust
    rules: dict[str, MaskRule] = {
        "all face": whole_face,
        "skin colour": skin_rule,
        "outlier-robust": robust_rule(robust.sigma, robust.cutoff),
    }
    return [Method(name + suffix, network, rule) for name, rule in rules.items()]


def _row(result: Result, half: str) -> dict[str, float]:
    row = {name: float(result.of(name, half).mean()) for name in (*_SCORES, "outlier_iou", "hard_accuracy", "hard_f1")}
    return {**row, "f1_std": float(result.of("f1", half).std())}


def _details(results: Sequence[Result]) -> dict[str, Any]:
    several = {r.method for r in results if sum(other.method == r.method for other in results) > 1}
    return {
        f"{result.method}, seed {result.seed}" if result.method in several else result.method: {
            "halves": {half: _row(result, half) for half in ("unoccluded", "occluded", "overall")},
            "occluders": {
                kind: {"pictures": count, "f1": mean, "outlier_iou": by_occluder(result, "outlier_iou")[kind][1]}
                for kind, (count, mean) in by_occluder(result, "f1").items()
            },
        }
        for result in results
    }


def _cells(row: dict[str, float]) -> list[str]:
    f1 = f"{row['f1']:.3f} ± {row['f1_std']:.3f}"
    scores = [f"{row[name]:.3f}" for name in _SCORES[:3]]
    return [*scores, f1, f"{row['outlier_iou']:.3f}", f"{row['hard_accuracy']:.3f}", f"{row['hard_f1']:.3f}"]


_HEAD = (*_TITLES, "outlier IoU", "ACC, thresholded", "F1, thresholded")


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for title in _HEAD:
        table.add_column(title, justify="right")
    details = _details(results)
    for half in ("unoccluded", "occluded", "overall"):
        table.add_row(f"[dim]{half}[/dim]")
        for method, parts in details.items():
            table.add_row(f"  {method}", *_cells(parts["halves"][half]))
    return table


def _markdown(subsets: dict[str, Any]) -> str:
    lines = []
    for subset, methods in subsets.items():
        lines += [f"## {subset}", "", "| | " + " | ".join(_HEAD) + " |", "|---|" + "---:|" * len(_HEAD)]
        for half in ("unoccluded", "occluded", "overall"):
            lines.append(f"| *{half}* |" + " |" * len(_HEAD))
            lines += [f"| {m} | " + " | ".join(_cells(parts["halves"][half])) + " |" for m, parts in methods.items()]
        kinds = list(next(iter(methods.values()))["occluders"])
        names = list(methods)
        lines += ["", "Outlier IoU by what is in front of the face:", "", "| | pictures | " + " | ".join(names) + " |"]
        lines.append("|---|---:|" + "---:|" * len(names))
        for kind in kinds:
            count = next(iter(methods.values()))["occluders"][kind]["pictures"]
            values = [f"{np.round(methods[m]['occluders'][kind]['outlier_iou'], 3):.3f}" for m in names]
            lines.append(f"| {kind.replace('_', ' ')} | {count} | " + " | ".join(values) + " |")
        lines.append("")
    return "\n".join(lines)


def parse(arguments: Sequence[str]) -> Segmentation:
    """Options of `focus evaluate segmentation`."""
    return parse_as(Segmentation, "evaluate segmentation", arguments)
