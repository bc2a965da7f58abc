"""The one exception that FOCUS raises for what a user handed in and can mend, and its warning."""

from __future__ import annotations


class FocusError(ValueError):
    """A file, an image, a setting or a command of the user's that cannot be used.

    The message says what was wrong, what was expected, what came, and what to do. It is a `ValueError`, so that callers
    who know nothing of FOCUS catch it as they would expect; the command line prints it without a traceback.
    """


class FocusWarning(UserWarning):
    """Something in a user's input was put right, and the user should know how; or only they can tell whether it is."""
