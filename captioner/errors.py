"""The one exception that stands for a mistake in what the user gave us.

The commands print its message and exit with 1; everything else is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Says in one sentence what is wrong, where, and what to do about it."""
