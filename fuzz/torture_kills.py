"""kill -9, and the signals that ask, at any moment of a training and of a fit: nothing is lost, nothing is half."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from torture_outcome import (
    FITTING,
    TRAINING,
    Outcome,
    command,
    finish,
    forked,
    photos_with_landmarks,
    run_command,
    warm_up,
)

ASKING = {signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP", signal.SIGINT: "SIGINT"}


def run(folder: Path, seed: int, seconds: float) -> list[Outcome]:
    """See the module."""
    warm_up()
    source = random.Random(seed)
    started = time.monotonic()
    outcomes = [Outcome(f"{what} of a training, resumed") for what in ("kill -9", "SIGTERM, SIGHUP or Ctrl-C")]
    round_number = 0
    while round_number == 0 or time.monotonic() - started < 0.6 * seconds:
        _training(folder / f"training{round_number}", source, outcomes, started + 0.6 * seconds)
        round_number += 1
    outcomes += [
        Outcome("kill -9 of focus fit, run again"),
        Outcome("SIGTERM, SIGHUP or Ctrl-C of focus fit, run again"),
    ]
    round_number = 0
    while round_number == 0 or time.monotonic() - started < seconds:
        _fit(folder / f"fit{round_number}", source, outcomes[2:], started + seconds)
        round_number += 1
    return outcomes


def _disturbed(arguments: list[object], source: random.Random, longest: float, output: Path) -> tuple[int | None, int]:
    """Runs a command and sends a signal after a random time: (signal, or None where it had ended before; exit code)."""
    child = forked(command(*arguments), output)
    end = time.monotonic() + source.uniform(0, longest)
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return None, os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    number = signal.SIGKILL if source.random() < 0.7 else source.choice(list(ASKING))
    os.killpg(child, number)
    return number, finish(child, 120)


def _told(output: Path) -> str:
    return " | ".join(output.read_text(errors="replace").strip().splitlines()[-2:])[-300:]


def _training(folder: Path, source: random.Random, outcomes: list[Outcome], until: float) -> None:
    folder.mkdir()
    output = folder / "output"
    arguments = ["train", *TRAINING, "--resume", "--out"]
    began = time.monotonic()
    code = run_command([*arguments, folder / "calm"], output)
    if code:
        outcomes[0].add("undisturbed run failed", f"exit {code}: {_told(output)}")
        return
    takes = time.monotonic() - began
    while True:
        number, code = _disturbed([*arguments, folder / "run"], source, takes * 0.5, output)
        outcome = outcomes[0] if number in (None, signal.SIGKILL) else outcomes[1]
        problem = _damaged(folder / "run" / "last.safetensors") or _untold(number, code, output)
        if number is not None:
            outcome.add("stopped, what was saved is whole" if problem is None else "not as promised", problem)
        if number is None or problem is not None or time.monotonic() > until:
            break
    code = run_command([*arguments, folder / "run"], output)
    same = code == 0 and _tensors(folder / "calm" / "last.safetensors") == _tensors(folder / "run" / "last.safetensors")
    outcomes[0].add(
        "ended with the bits of an undisturbed run" if same else "another result",
        None if same else f"exit {code}, or other weights than an undisturbed run: {_told(output)}",
    )


def _damaged(checkpoint: Path) -> str | None:
    from focus.errors import FocusError
    from focus.train import load_checkpoint

    try:
        if checkpoint.exists():
            load_checkpoint(checkpoint)
    except FocusError as error:
        return str(error)
    return None


def _untold(number: int | None, code: int, output: Path) -> str | None:
    """Signals that ask are answered by a message and an exit code; what ends by itself ends well."""
    text = output.read_text(errors="replace")
    if "Traceback" in text:
        return f"a traceback: {_told(output)}"
    if number is None:
        return None if code == 0 else f"ended by itself with exit {code}: {_told(output)}"
    # Before the command has begun to listen, a signal ends the process at once, as it does any other.
    if number in ASKING and code not in (0, 130, 143, 129, -number):
        return f"{ASKING[signal.Signals(number)]}: exit {code}: {_told(output)}"
    return None


def _tensors(path: Path) -> dict[str, bytes]:
    from focus.train import load_checkpoint

    return {name: value.numpy().tobytes() for name, value in load_checkpoint(path).tensors.items()}


def _fit(folder: Path, source: random.Random, outcomes: list[Outcome], until: float) -> None:
    folder.mkdir()
    output = folder / "output"
    # Drawn in a process of its own: this one must not have started threads of torch when it forks.
    if finish(forked(lambda: int(not photos_with_landmarks(folder / "photos", 4).exists()), output), 120):
        outcomes[0].add("photos could not be drawn", _told(output))
        return
    arguments = ["fit", folder / "photos", "--landmarks", folder / "photos" / "landmarks.csv", *FITTING, "--out"]
    began = time.monotonic()
    code = run_command([*arguments, folder / "calm"], output)
    takes = time.monotonic() - began
    calm = results(folder / "calm")
    if code or len(calm) < 4 * 6:
        outcomes[0].add("undisturbed run failed", f"exit {code}, {len(calm)} files: {_told(output)}")
        return
    while True:
        number, code = _disturbed([*arguments, folder / "out"], source, takes * 0.9, output)
        outcome = outcomes[0] if number in (None, signal.SIGKILL) else outcomes[1]
        problem = _mixed(folder / "out", calm) or _untold(number, code, output)
        if number is not None:
            outcome.add("stopped, all results are whole" if problem is None else "not as promised", problem)
        if number is None or problem is not None or time.monotonic() > until:
            break
    code = run_command([*arguments, folder / "out"], output)
    same = code == 0 and results(folder / "out") == calm
    outcomes[0].add(
        "a rerun ended with the same files" if same else "other files",
        None if same else f"exit {code}, or other files than of an undisturbed run: {_told(output)}",
    )


def results(folder: Path) -> dict[str, bytes]:
    """The files of the reconstructions in a folder."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("photo*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _mixed(folder: Path, calm: dict[str, bytes]) -> str | None:
    """Files that are there are whole; and those of a photo are all there, or it is not among the results."""
    found = results(folder) if folder.exists() else {}
    for name, data in found.items():
        if calm.get(name) != data:
            return f"{name} is not what an undisturbed run writes"
    stems = {name.removesuffix(".json") for name in found if name.endswith(".json")}
    for stem in stems:
        missing = [name for name in calm if name.split(".")[0].split("_")[0] == stem and name not in found]
        if missing:
            return f"{stem}: {', '.join(missing)} not there beside its JSON file"
    return None
