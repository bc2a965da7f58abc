"""One bit of a file that FOCUS wrote, flipped: found, or without any meaning."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture_outcome import TRAINING, Outcome, finish, forked, run_command, warm_up


def run(folder: Path, seed: int, seconds: float) -> list[Outcome]:
    """See the module. A quarter of the flips fall into the first kibibytes, where the headers are."""
    warm_up()
    source = random.Random(seed)
    output = folder / "output"
    training = folder / "run"
    run_command(["train", *TRAINING, "--out", training], output)
    model = folder / "face.focusmodel"
    prior = folder / "prior.safetensors"
    finish(forked(lambda: _write(training / "last.safetensors", model, prior), output), 120)
    kinds: dict[str, tuple[Path, Callable[[Path], Any]]] = {
        "a checkpoint": (training / "last.safetensors", _read_checkpoint),
        "a face model": (model, _read_model),
        "a misfit prior": (prior, _read_prior),
    }
    return [_flip(kind, path, read, source, seconds / len(kinds)) for kind, (path, read) in kinds.items()]


def _write(checkpoint: Path, model: Path, prior: Path) -> int:
    import torch

    from focus.eval.misfit import MisfitPrior
    from focus.face import MorphableModel

    face = MorphableModel.procedural("small", 3, 2, 2)
    face.save(model)
    MisfitPrior(torch.zeros(face.vertex_count, 3), face.name, face.fingerprint(), 10, 5, "torture").save(prior)
    return 0


def _flip(kind: str, path: Path, read: Callable[[Path], Any], source: random.Random, seconds: float) -> Outcome:
    from focus.errors import FocusError

    outcome = Outcome(f"one flipped bit of {kind}")
    if not path.exists():
        outcome.add("not written", f"{path.name} is not there")
        return outcome
    good = path.read_bytes()
    meaning = read(path)
    place = path.with_name(f"flipped{path.suffix}")
    header = min(len(good), 16384)
    started = time.monotonic()
    while outcome.tried < 200 or time.monotonic() - started < seconds:
        data = bytearray(good)
        position = source.randrange(header if outcome.tried % 4 else len(good))
        data[position] ^= 1 << source.randrange(8)
        place.write_bytes(data)
        try:
            found = read(place)
        except FocusError:
            outcome.add("refused")
        except Exception as error:
            outcome.add("not as promised", f"byte {position}: {type(error).__name__}: {error}")
        else:
            same = found == meaning
            outcome.add(
                "read as before" if same else "accepted", None if same else f"byte {position}: read as something else"
            )
    place.unlink()
    return outcome


def _read_checkpoint(path: Path) -> Any:
    from focus.train import load_checkpoint

    checkpoint = load_checkpoint(path)
    return (
        checkpoint.header,
        checkpoint.settings,
        {name: value.numpy().tobytes() for name, value in checkpoint.tensors.items()},
    )


def _read_model(path: Path) -> Any:
    from focus.face import MorphableModel

    model = MorphableModel.load(path)
    arrays = {name: value.numpy().tobytes() for name, value in model.named_buffers()}
    return model.name, model.licence, model.expression_prior, model.recipe, arrays


def _read_prior(path: Path) -> Any:
    from focus.eval.misfit import MisfitPrior

    prior = MisfitPrior.load(path)
    values = {name: value for name, value in vars(prior).items() if name != "offsets"}
    return values, prior.offsets.numpy().tobytes()
