"""What to do after a training: commands that work for its run, in the directory it was started in."""

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path


def next_commands(
    run: Path, split: str, image: Path, beam_size: int, has_attention: bool
) -> list[str]:
    """Score the split; caption the image, with heatmaps where the model attends; serve."""
    beam = ["--beam-size", str(beam_size)]
    maps = ["--heatmap", str(run / "maps")] if has_attention else []
    served = all(find_spec(name) for name in ("fastapi", "uvicorn", "python_multipart"))
    caption = ["python", "-m", "captioner", "caption", str(image), "--checkpoint", str(run)]
    return [
        shlex.join(
            ["python", script("evaluate.py"), "--checkpoint", str(run), "--split", split, *beam]
        ),
        shlex.join([*caption, *beam, *maps]),
        ("" if served else "pip install 'captioner[serve]' && ")
        + shlex.join(["python", "-m", "captioner", "serve", str(run)]),
    ]


def longer(argv: Sequence[str], run: Path, epochs: int, processes: int = 1) -> str:
    """The training of these arguments anew, in another run and with so many epochs.

    Anew, since the learning rate falls to nothing by the last epoch, however many there are.
    """
    several = ["torchrun", "--nproc-per-node", str(processes), "--"]  # without it --run is its own
    start = ["python"] if processes == 1 else several
    words, kept = iter(argv), []
    for word in words:
        if word in ("--epochs", "--run"):
            next(words)
        elif not (_resumes(word) or word.startswith(("--epochs=", "--run="))):
            kept.append(word)
    changed = ["--epochs", str(epochs), "--run", f"{run.name}-{epochs}-epochs"]  # the last count
    return shlex.join([*start, script("train.py"), *kept, *changed])


def _resumes(word: str) -> bool:
    return word.startswith("--re") and "--resume".startswith(word)


def script(name: str) -> str:
    """A program beside the one that runs."""
    running = Path(sys.argv[0])
    return str(running.with_name(name)) if running.name == "train.py" else name
