"""The one exception that FOCUS raises for what a user handed in and can mend, and its warning."""

from __future__ import annotations


class FocusError(ValueError):
    """A file, an image, a setting or a command of the user's that cannot be used.

    The message says what was wrong, what was expected, what came, and what to do. It is a `ValueError`, so that callers
    who know nothing of FOCUS catch it as they would expect; the command line prints it without a traceback.
    """


class FocusWarning(UserWarning):
    """Something in a user's input was put right, and the user should know how; or only they can tell whether it is."""


_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch says so by a `RuntimeError`, everyone else by a `MemoryError`."""
    if isinstance(error, RuntimeError):
        return type(error).__name__ == "OutOfMemoryError" or any(text in str(error).lower() for text in _NO_MEMORY)
    return isinstance(error, MemoryError)


def reason_to_skip(error: Exception) -> str:
    """Why one input of many has no result, in one line, for the report of those that have."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FocusError):
        return str(error)
    if out_of_memory(error):
        return f"not enough memory ({text}); use a smaller picture, or close other programs"
    return f"{fault(error)}; this is a fault of FOCUS, please report it"


def fault(error: BaseException) -> str:
    """Type and message of an exception that nobody foresaw, and the line of FOCUS that it came from."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "focus":
            place = f" ({trace.tb_frame.f_globals['__name__']}, line {trace.tb_lineno})"
        trace = trace.tb_next
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
