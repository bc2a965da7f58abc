"""The compiled module `focus._C`, or why there is none and what to do about it."""

from __future__ import annotations

import importlib
import importlib.machinery
import re
import sys
from pathlib import Path
from types import ModuleType

from focus.errors import FocusError

_NAME = "focus._C"
_PACKAGE = Path(__file__).resolve().parent


class CompiledModuleError(ImportError, FocusError):
    """`focus._C` cannot be imported; the message says why, and what to do."""


def load() -> ModuleType:
    """Imports `focus._C`.

    Raises:
        CompiledModuleError: it is missing, was built for another Python, or cannot be loaded.
    """
    try:
        return importlib.import_module(_NAME)
    except ModuleNotFoundError as error:
        if error.name != _NAME:
            raise
        raise CompiledModuleError(explain_absence(_PACKAGE, sys.path), name=_NAME) from None
    except ImportError as error:
        raise CompiledModuleError(_explain_failure(error), name=_NAME, path=error.path) from error


def explain_absence(package: Path, search_path: list[str]) -> str:
    """Why a folder of the package has no compiled module for this Python, and what to do.

    Args:
        package: the folder ``focus`` that was imported.
        search_path: where an installed one may be, as `sys.path`.
    """
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    is_source = (package.parent / "CMakeLists.txt").is_file() and (package.parent / "csrc").is_dir()
    others = sorted(path.name for path in package.glob("_C.*") if path.suffix in (".so", ".pyd"))
    message = f"focus was imported from {package}"
    if is_source:
        message += ", the folder of its sources, which has no compiled module"
    else:
        message += ", and its compiled module is missing"
    if others:
        wanted = f"_C{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        message += f" for {python} (expected {wanted}, found {', '.join(others)}: built for another Python or machine)"
    elsewhere = _installed_elsewhere(package, search_path) if is_source else None
    if elsewhere is not None:
        leave = "start Python in another folder, or as `python -P` (from 3.11 on), or use the command `focus`"
        return f"{message}. A whole one is installed in {elsewhere}: {leave}"
    if is_source:
        install = "`python -m pip install .` here and start Python in another folder"
        return f"{message}. Install it: {install}, or `python -m pip install -e .` to work on the sources"
    return f"{message}. Install it with this Python: `python -m pip install --force-reinstall focus-face`"


def card_obstacle(runtime: str, driver: str | None, architectures: str, capability: tuple[int, int]) -> str | None:
    """Why the CUDA kernels of this build would not run on a card, and what to do; None where they would.

    By NVIDIA's rules: a runtime needs a driver of its major version or a newer one; machine code runs on cards of its
    major architecture that are not older, and PTX (of an architecture without ``-real``) on all that are not older, by
    a driver that is no older than the runtime. Code for ``90a`` runs on that architecture alone.

    Args:
        runtime: of the build, ``_C.cuda_version``.
        driver: ``_C.cuda_driver()``.
        architectures: ``_C.cuda_architectures``, for example ``75-real,80-real,90``.
        capability: of the card, for example (8, 6).
    """
    serves = None if driver is None else [int(part) for part in driver.split(".")]
    built_with = [int(part) for part in runtime.split(".")]
    if serves is not None and serves[0] < built_with[0]:
        return (
            f"the driver serves CUDA up to {driver}, and this build has the runtime of CUDA {runtime}: install a newer "
            f"driver, or build focus-face with nvcc {driver} or older"
        )
    card = 10 * capability[0] + capability[1]
    needs_newer_driver = False
    for entry in architectures.split(","):
        found = re.fullmatch(r"(\d+)([af]?)(-real|-virtual)?", entry.strip())
        if found is None:  # `native`, `all`: of whatever machine
            return None
        number, kind, form = int(found[1]), found[2], found[3]
        if form != "-virtual" and (card == number if kind == "a" else card >= number and number // 10 == capability[0]):
            return None
        if form != "-real" and not kind and card >= number:
            if serves is None or serves >= built_with:
                return None
            needs_newer_driver = True
    if needs_newer_driver:
        return (
            f"this build has PTX of CUDA {runtime} for the card, which is of {card}, and the driver serves CUDA up to "
            f"{driver}, which cannot compile it: install a newer driver, or build focus-face on this machine"
        )
    return (
        f"this build has kernels for the architectures {architectures}, and the card is of {card}: build focus-face on "
        f"this machine, or with FOCUS_CUDA_ARCHITECTURES={card}"
    )


def _installed_elsewhere(package: Path, search_path: list[str]) -> Path | None:
    """The first folder of the search path, other than that of `package`, with a focus that this Python can load."""
    for entry in map(Path, search_path):
        folder = entry / "focus"
        names = (f"_C{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
        if folder.resolve() != package and any((folder / name).is_file() for name in names):
            return folder
    return None


def _explain_failure(error: ImportError) -> str:
    """What the loader said, and what it usually means."""
    words = str(error)
    if "GLIBC" in words or "CXXABI" in words:
        cure = (
            "the system libraries here are older than those that it was built with: build it on this machine (`python "
            "-m pip install .` in a folder of its sources), or install newer ones (conda: libstdcxx-ng)"
        )
    elif "cannot open shared object file" in words:
        cure = f"install the library that provides {words.split(':')[0]}, or build focus-face on this machine"
    else:
        cure = (
            "the file is damaged or was built for another machine: `python -m pip install --force-reinstall focus-face`"
        )
    return f"{error.path or _NAME}: the compiled module of focus cannot be loaded ({words}); {cure}"
