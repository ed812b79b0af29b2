"""What may end a command without a traceback: a user's mistake, the machine's trouble, a signal.

Everything else is a bug and is shown as it is.
"""

import signal
import sys
import traceback
from collections.abc import Callable


class InputError(ValueError):
    """Says in one sentence what is wrong, where, and what to do about it."""

    def __init__(self, message: str) -> None:
        # A loader's worker hands an error on as the text of its traceback, which ends with it.
        super().__init__(message.rpartition("InputError: ")[2].rstrip())


class Interrupted(Exception):
    """A signal ended the work after everything was saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def run_command(main: Callable[[], None]) -> None:
    """Run a command and exit as a shell expects: 0, 1 for an error, 128 + n for signal n.

    argparse exits with 2 by itself for a wrong command line.
    """
    try:
        main()
    except (InputError, FloatingPointError, OSError, Interrupted, KeyboardInterrupt) as error:
        traceback.clear_frames(error.__traceback__)  # what loaders they hold would keep workers
        if isinstance(error, Interrupted):
            print(f"stopped by {error}; everything is saved", file=sys.stderr)
            sys.exit(128 + error.signum)
        sys.exit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else f"error: {error}")


def leave_signals_to_parent(worker: int) -> None:
    """Let a loader's worker outlive Ctrl-C and SIGTERM, so that the step under way can finish.

    Not for long: a parent that ends in another way terminates its workers and waits for them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(10))
