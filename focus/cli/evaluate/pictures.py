"""`focus evaluate pictures`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from focus.bounds import COUNT, SEED
from focus.cli.command import Command, Outcome, bars, parse_as
from focus.data.images import write_image
from focus.data.synthetic import SyntheticFaces
from focus.errors import FocusError
from focus.eval.mask_files import picture_stem
from focus.eval.testset import SUBSETS, VERSION, benchmark_faces, digest
from focus.report.panels import to_picture
from focus.report.results import write_json
from focus.train import load_trained, shipped_checkpoint

_BATCH = 32


@dataclass(kw_only=True)
class Pictures(Command):
    """Write the pictures of the fixed test set, with their true masks, for other programs to find masks in."""

    initial: Path | None = None
    """Network in whose face model and image size they are drawn; by default the shipped one."""
    faces: Annotated[int, COUNT] = 500
    """Of each subset; each is seen once with and once without an occluder."""
    subsets: tuple[str, ...] = SUBSETS
    """Of the test set."""
    seed: Annotated[int, SEED] = 0
    """0 is the test set; others are for choosing settings."""
    out: Path
    """Folder for pictures/SUBSET/NAME.png, true_masks/SUBSET/NAME.png, and pictures.json."""

    def run(self) -> Outcome:
        """Draws and writes them, subset by subset."""
        initial = self.initial or shipped_checkpoint()
        if initial is None:
            raise FocusError("focus evaluate pictures: this build ships no network; hand one in with --initial")
        trained = load_trained(initial)
        size = trained.settings.image_size
        sets = {subset: benchmark_faces(trained.model, size, subset, self.seed) for subset in self.subsets}
        outcome = Outcome(read=[str(initial)])
        self.so_far = lambda: outcome
        with bars() as update:
            for subset, faces in sets.items():
                for number, path in enumerate(_write(faces, self.faces, self.out, subset), start=1):
                    outcome.written.append(path)
                    update(subset, number, 4 * self.faces, path.name)
        outcome.details = {
            "version": VERSION,
            "seed": self.seed,
            "faces": self.faces,
            "image_size": size,
            "model": trained.model.name,
            "subsets": {subset: {"digest": digest(faces, self.faces)} for subset, faces in sets.items()},
        }
        outcome.written.append(write_json(self.out / "pictures.json", outcome.details))
        return outcome


def _write(faces: SyntheticFaces, count: int, out: Path, subset: str) -> Iterator[Path]:
    """Every picture of a subset with its true mask, one file after the other."""
    folders = [out / kind / subset for kind in ("pictures", "true_masks")]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FocusError(f"{folder}: cannot be made ({error.strerror or error}); choose another folder") from error
    for occluded in (True, False):
        for start in range(0, count, _BATCH):
            batch = faces.batch(start, min(_BATCH, count - start), occluded=occluded)
            if batch.visible_mask is None:
                raise ValueError("pictures: expected faces whose true mask is known")
            for image, mask, name in zip(batch.image, batch.visible_mask, batch.names, strict=True):
                for folder, content in zip(folders, (image, mask), strict=True):
                    yield write_image(folder / f"{picture_stem(name, occluded)}.png", to_picture(content))


def parse(arguments: Sequence[str]) -> Pictures:
    """Options of `focus evaluate pictures`."""
    return parse_as(Pictures, "evaluate pictures", arguments)
