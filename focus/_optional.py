"""Imports of packages that only some users need, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from focus.errors import FocusError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Imports `module`, or raises `FocusError` that names the extra of this distribution which brings it.

    Args:
        module: import name, for example ``"h5py"``.
        extra: the extra of `focus-face` that installs it, for example ``"bfm"``.
        purpose: what it is needed for; completes "... is needed to <purpose>".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FocusError(
            f"{module} is needed to {purpose}, and importing it failed ({error}). "
            f'Install it with: pip install "focus-face[{extra}]"'
        ) from error
