"""What may end a command without a traceback: a user's mistake, the machine's trouble, a signal.

Everything else is a bug and is shown as it is.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Says in one sentence what is wrong, where, and what to do about it."""


class Interrupted(Exception):
    """A signal ended the work after everything was saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def collect_signals(received: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM are noted; the second one ends the program as if this were not here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, frame: object) -> None:
        received.append(signum)
        for signum, handler in before.items():
            signal.signal(signum, handler)

    for signum in before:
        signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def run_command(main: Callable[[], None]) -> None:
    """Run a command and exit as a shell expects: 0, 1 for an error, 128 + n for signal n.

    argparse exits with 2 by itself for a wrong command line.
    """
    try:
        main()
    except (InputError, FloatingPointError, OSError, Interrupted, KeyboardInterrupt) as error:
        if isinstance(error, Interrupted):
            print(f"stopped by {error}; everything is saved, --resume goes on", file=sys.stderr)
            sys.exit(128 + error.signum)
        sys.exit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else f"error: {error}")
