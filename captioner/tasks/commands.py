"""Commands suggested at the end of training.

They must be run from the directory in which training was started.
"""

import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..checkpoints.runs import RESUME


def longer_command(argv: Sequence[str], run: Path, epochs: int, processes: int = 1) -> str:
    """Return the command that repeats a run under a new name with a different number of epochs.

    argv: the arguments of the finished run. The new run starts from scratch, since the learning
    rate of the finished run has already decayed to zero.
    """
    replaced = ("--epochs", "--run")
    kept = [
        word
        for before, word in pairwise(["", *argv])
        if before not in replaced
        and word.partition("=")[0] not in replaced
        and not _is_resume(word)
        and not (_is_resume(before) and word in RESUME)
    ]
    # The last --epochs takes effect, so an earlier abbreviated one is harmless.
    changed = ["--epochs", str(epochs), "--run", f"{run.name}-{epochs}-epochs"]
    words = program("train")
    if processes > 1:
        # Without "--", torchrun would parse --run as an abbreviation of one of its own options.
        module = [] if words[0] == "python" and words[1] != "-m" else ["-m"]
        script = ["captioner", "train"] if module else words[1:]
        words = ["torchrun", "--nproc-per-node", str(processes), *module, "--", *script]
    return shlex.join([*words, *kept, *changed])


def _is_resume(word: str) -> bool:
    """Return whether argparse parses the word as --resume, possibly abbreviated."""
    flag = word.partition("=")[0]
    return flag.startswith("--re") and "--resume".startswith(flag)


def program(name: str) -> list[str]:
    """Return the arguments of the command that runs "train" or "evaluate".

    If the running program is train.py, the command runs train.py or evaluate.py beside it.
    """
    running = Path(sys.argv[0])
    if running.name == "train.py":
        return ["python", str(running.with_name(f"{name}.py"))]
    return [*captioner_command(), name]


def captioner_command() -> list[str]:
    """Return the arguments of the command that runs captioner.

    If the running program was started as "captioner", that command is assumed to be on the PATH.
    """
    by_name = Path(sys.argv[0]).stem == "captioner"
    return ["captioner"] if by_name else ["python", "-m", "captioner"]
