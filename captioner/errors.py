"""What may end a command without a traceback: a user's mistake, the machine's trouble, a signal.

Everything else is a bug and is shown as it is.
"""

import os
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

    argparse exits with 2 by itself for a wrong command line. Where what reads the output has gone,
    as `head` does, the command ends silently, as if SIGPIPE had ended it.
    """
    ended: str | int | None = None
    try:
        ended = _end_of(main)
        print(end="", flush=True)  # at exit it would be too late to be silent
    except OSError as error:
        closed = isinstance(error, BrokenPipeError)
        ended = ended or (128 + signal.SIGPIPE if closed else f"error: {error}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
    if ended is not None:
        sys.exit(ended)


def _end_of(main: Callable[[], None]) -> str | int | None:
    """What the command is to exit with; raises BrokenPipeError where its output is not read."""
    try:
        main()
    except SystemExit as ended:
        return ended.code
    except BrokenPipeError:
        raise
    except (InputError, FloatingPointError, OSError) as error:
        return f"error: {error}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Interrupted as error:
        print(f"stopped by {error}; everything is saved, --resume goes on", file=sys.stderr)
        return 128 + error.signum
    return None
