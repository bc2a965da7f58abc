"""`focus evaluate segmentation`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.text import Text

from focus.bounds import COUNT, SEED
from focus.cli.command import Command, Outcome, bars, named_values, parse_as
from focus.cli.evaluate.checkpoints import load_alike, names_of
from focus.errors import FocusError
from focus.eval import Method, evaluate
from focus.eval.benchmark import MaskRule, robust_rule, skin_rule, whole_face
from focus.eval.mask_files import check_masks, folder_rule, picture_stem
from focus.eval.masked_photos import MaskedPhotos, evaluate_photos, read_names, results_of_photos
from focus.eval.results import Result, append_results, from_evaluation, known_results
from focus.eval.testset import SUBSETS, VERSION, benchmark_faces, digest, refuse_name
from focus.experiment.provenance import commit
from focus.experiment.recipes import RECIPES, title_of
from focus.experiment.training import method_of
from focus.report.files import check_folder
from focus.report.results import write_json, write_text
from focus.report.segmentation import segmentation_details, segmentation_markdown, segmentation_table
from focus.train import Trained, shipped_checkpoint
from focus.train.distributed import pick_device

_FACES = 500


@dataclass(kw_only=True)
class Segmentation(Command):
    """Masks of the face against the truth, on the fixed test set (Table 1 of the paper) or on photos."""

    checkpoints: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Trained networks, each with its own reconstruction and mask."""
    initial: Path | None = None
    """Network whose reconstructions the rules without a network of their own are given; by default the shipped one."""
    masks: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=FOLDER, once for each program whose masks are scored: FOLDER/SUBSET/PICTURE.png, see focus evaluate
    pictures; of photos, pictures of the same names.
    """
    faces: Annotated[int, COUNT] = _FACES
    """Of each subset; each is seen once with and once without an occluder."""
    subsets: tuple[str, ...] = SUBSETS
    """Of the test set."""
    seed: Annotated[int, SEED] = 0
    """0 is the test set; others are for choosing settings."""
    photos: Path | None = None
    """Folder of photos, in place of the test set."""
    landmarks: Path | None = None
    """Of the photos. CSV file: photo, then x and y of 68 iBUG points, or of 5: eye centres, nose tip, mouth corners."""
    truth: Path | None = None
    """Folder of the photos' true masks, of the same names and sizes: white where the face is seen."""
    occluded: Path | None = None
    """Text file with the names of the photos that have something in front of the face, one in a line, with or without
    suffix; by default nothing is said about that.
    """
    device: str = "auto"
    """cpu, cuda, or auto."""
    out: Path
    """Folder for results.jsonl (added to what is there), segmentation.json and segmentation.md."""

    def run(self) -> Outcome:
        """Scores rules, networks and folders of masks, subset by subset."""
        source = self._photo_source()
        results_file = check_folder(self.out) / "results.jsonl"
        known_results(results_file)  # refuses what nothing could be added to, before the work
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
        # Names of trained methods are theirs, also in runs without one: a later result takes the place of an earlier.
        taken = list(dict.fromkeys([*(method.name for method in methods), *RECIPES]))
        folders = {name: Path(folder) for name, folder in named_values("masks", self.masks).items()}
        for name in folders:
            if name + suffix in taken:
                raise FocusError(f"--masks: {name} is the name of a method here ({', '.join(taken)}); choose another")

        def own(name: str, rule: MaskRule) -> Method:
            return Method(name + suffix, first.networks.reconstruction, rule)

        outcome = Outcome(read=[str(initial), *map(str, self.checkpoints), *map(str, folders.values())])
        with bars() as update:
            if source is None:
                results = self._on_test_set(first, methods, folders, own, device, update)
            else:
                occluded = None if self.occluded is None else read_names(self.occluded)
                photos = MaskedPhotos(*source, first.settings.image_size, occluded=occluded)
                outcome.read += photos.names
                outcome.skipped += photos.skipped
                rows = [own(name, photos.folder_rule(name, folder)) for name, folder in folders.items()]
                values = evaluate_photos(
                    [*methods, *rows],
                    photos,
                    first.model,
                    device=device,
                    progress=lambda done, total: update("photos", done, total, ""),
                )
                results = results_of_photos(values, photos, commit=commit())
        # One method trained with several seeds keeps its name: the seeds tell its results apart.
        runs = [(title_of(trained.settings), trained.settings.seed) for trained in others]
        known = {name: run if runs.count(run) == 1 else (name, run[1]) for name, run in zip(names, runs, strict=True)}
        for number, result in enumerate(results):
            method, seed = known.get(result.method, (result.method, 0))
            results[number] = replace(result, method=method, seed=seed)
        subsets = {
            subset: segmentation_details([result for result in results if result.subset == subset])
            for subset in dict.fromkeys(result.subset for result in results)
        }
        for subset, details in subsets.items():
            outcome.shown += [Text(subset, style="bold"), segmentation_table(details), Text()]
        outcome.details = {"subsets": subsets}
        outcome.written = [
            append_results(results_file, results),
            write_json(self.out / "segmentation.json", outcome.details),
            write_text(self.out / "segmentation.md", segmentation_markdown(subsets)),
        ]
        return outcome

    def _photo_source(self) -> tuple[Path, Path, Path] | None:
        """Folder of photos, landmark file, and folder of true masks; None: the test set."""
        given = {"landmarks": self.landmarks, "truth": self.truth, "occluded": self.occluded}
        if self.photos is None:
            needless = [f"--{name}" for name, value in given.items() if value is not None]
            if needless:
                raise FocusError(f"{', '.join(needless)}: of photos; expected --photos, too")
            return None
        if self.landmarks is None or self.truth is None:
            raise FocusError(
                "--photos: expected --landmarks and --truth, too, to find the faces and to score the masks"
            )
        if (self.faces, tuple(self.subsets), self.seed) != (_FACES, SUBSETS, 0):
            raise FocusError("--faces, --subsets and --seed are of the test set; leave them out, or leave out --photos")
        refuse_name(self.photos)
        return self.photos, self.landmarks, self.truth

    def _on_test_set(
        self,
        first: Trained,
        methods: Sequence[Method],
        folders: Mapping[str, Path],
        own: Callable[[str, MaskRule], Method],
        device: torch.device,
        update: Callable[[str, float, float, str], None],
    ) -> list[Result]:
        sets = {s: benchmark_faces(first.model, first.settings.image_size, s, self.seed) for s in self.subsets}
        for subset, faces in sets.items():
            stems = [picture_stem(name, half) for half in (True, False) for name in faces.names(0, self.faces)]
            for name, folder in folders.items():
                check_masks(name, folder / subset, stems, faces.image_size)
        results: list[Result] = []
        for subset, faces in sets.items():
            evaluation = evaluate(
                [*methods, *(own(name, folder_rule(folder / subset)) for name, folder in folders.items())],
                faces,
                self.faces,
                device=device,
                progress=lambda done, total, name=subset: update(name, done, total, ""),  # type: ignore[misc]
            )
            results += from_evaluation(
                evaluation, seed=0, subset=subset, version=VERSION, digest=digest(faces, self.faces), commit=commit()
            )
        return results


def _rules(trained: Trained, suffix: str) -> list[Method]:
    """What needs no segmentation network, all with the same reconstructions."""
    network, robust = trained.networks.reconstruction, trained.settings.robust
    rules: dict[str, MaskRule] = {
        "all face": whole_face,
        "skin colour": skin_rule,
        "outlier-robust": robust_rule(robust.sigma, robust.cutoff),
    }
    return [Method(name + suffix, network, rule) for name, rule in rules.items()]


def parse(arguments: Sequence[str]) -> Segmentation:
    """Options of `focus evaluate segmentation`."""
    return parse_as(Segmentation, "evaluate segmentation", arguments)
