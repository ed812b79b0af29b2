"""Errors and signals that end a command without a traceback.

User mistakes, system errors and signals end a command with a one-line message. Any other
exception is a bug and is reported with its traceback.
"""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

SIGPIPE = 13  # signal.SIGPIPE does not exist on Windows


class InputError(ValueError):
    """A user's mistake; the message says what failed, why, and what to do."""


def refuse_path(cls: type, args: Sequence[object], method: str = "from_pretrained") -> None:
    """Raise InputError if the first argument of a constructor is a path, and name the method."""
    if args and isinstance(args[0], str | os.PathLike):
        name = f"{cls.__name__}.{method}"
        raise InputError(
            f"{cls.__name__}(...) does not accept a path; use {name}({str(args[0])!r})"
        )


class Interrupted(Exception):  # noqa: N818 -- not an error: the work was saved
    """Raised when a signal has stopped the work and everything has been saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def collect_signals(received: list[int]) -> Iterator[None]:
    """Append the signal number of a SIGINT or SIGTERM to `received` instead of ending the program.

    Only the first signal is collected: the previous handlers are then restored, so that a second
    signal ends the program as usual. Outside the main thread, where Python cannot handle signals,
    this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)

    def collect(signum: int, _frame: object) -> None:
        received.append(signum)
        restore()

    for signum in handlers:
        signal.signal(signum, collect)
    try:
        yield
    finally:
        restore()


def run_command(main: Callable[[], None]) -> None:
    """Run a command and exit with 0 for success, 1 for an error, or 128 + N for signal N.

    argparse itself exits with 2 for an invalid command line. If the reader of the output has closed
    the pipe, as `head` does, the command ends silently, as if it had been killed by SIGPIPE.
    """
    status: str | int | None = None
    try:
        status = _exit_status(main)
        print(end="", flush=True)  # an error in the final flush at exit cannot be caught
    except OSError as error:
        closed = isinstance(error, BrokenPipeError)
        status = status or (128 + SIGPIPE if closed else f"error: {_explain(error)}")
        # The interpreter flushes the rest of the buffer at exit, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if status is not None:
        sys.exit(status)


def _explain(error: OSError) -> str:
    """Return the message for a system error: the file and what to do, if known, and the reason."""
    advice = {
        errno.EACCES: "; choose another path or change its permissions",
        errno.EROFS: "; choose a path on a writable disk",
        errno.ENOSPC: "; free some space or choose another disk",
    }
    if error.strerror is None:
        return str(error)
    path = error.filename
    name = os.fsdecode(path) if isinstance(path, bytes) else path  # or a file descriptor
    about = "" if path is None else f"{name} cannot be used: "
    return f"{about}{error.strerror}{advice.get(error.errno or 0, '')}"


def _exit_status(main: Callable[[], None]) -> str | int | None:
    """Run `main` and return the argument for sys.exit; raise BrokenPipeError for a closed pipe."""
    try:
        main()
    except SystemExit as ended:
        return ended.code
    except BrokenPipeError:
        raise
    except (InputError, FloatingPointError) as error:
        return f"error: {error}"
    except OSError as error:
        return f"error: {_explain(error)}"
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Interrupted as error:
        print(
            f"stopped by {error}; everything is saved; pass --resume to continue", file=sys.stderr
        )
        return 128 + error.signum
    return None
