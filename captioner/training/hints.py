"""Suggested commands at the end of training.

They work in the directory in which the training was started.
"""

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..data.storage.location import Location


def next_commands(
    run: Path, split: str, image: Path | Location, beam_size: int, has_attention: bool
) -> list[str]:
    """Commands that score the split, caption the image (with heatmaps if possible), and serve."""
    beam = ["--beam-size", str(beam_size)]
    maps = ["--heatmap", str(run / "maps")] if has_attention else []
    can_serve = all(find_spec(name) for name in ("fastapi", "uvicorn", "python_multipart"))
    evaluate = ["python", script_path("evaluate.py"), "--checkpoint", str(run), "--split", split]
    caption = ["python", "-m", "captioner", "caption", str(image), "--checkpoint", str(run)]
    serve = ["python", "-m", "captioner", "serve", str(run)]
    return [
        shlex.join([*evaluate, *beam]),
        shlex.join([*caption, *beam, *maps]),
        ("" if can_serve else "pip install 'captioner[serve]' && ") + shlex.join(serve),
    ]


def longer_command(argv: Sequence[str], run: Path, epochs: int, processes: int = 1) -> str:
    """The command that repeats a training as a new run with another number of epochs.

    argv: the arguments of the finished training. It starts from scratch, since the learning rate
    of the finished run has already decayed to zero.
    """
    # Without "--", torchrun would parse --run as an abbreviation of one of its own options.
    launch = ["torchrun", "--nproc-per-node", str(processes), "--"] if processes > 1 else ["python"]
    words, kept = iter(argv), []
    for word in words:
        if word in ("--epochs", "--run"):
            next(words)
        elif not (_is_resume(word) or word.startswith(("--epochs=", "--run="))):
            kept.append(word)
    # The last --epochs counts, so an abbreviated one that was kept does no harm.
    changed = ["--epochs", str(epochs), "--run", f"{run.name}-{epochs}-epochs"]
    return shlex.join([*launch, script_path("train.py"), *kept, *changed])


def _is_resume(word: str) -> bool:
    """Whether argparse reads the word as --resume, possibly abbreviated."""
    return word.startswith("--re") and "--resume".startswith(word)


def script_path(name: str) -> str:
    """The path of a script in the directory of the running train.py, else its name alone."""
    running = Path(sys.argv[0])
    return str(running.with_name(name)) if running.name == "train.py" else name
