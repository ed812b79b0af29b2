"""Kill training at random moments, and load files with random damage: python -m benchmarks.kills.

    python -m benchmarks.kills --kills 200 --files 2000

Training is started, killed and started again with `--resume auto` until it is finished; its newest
intact checkpoint must never become older, and its weights must equal those of an uninterrupted
run, bit for bit. Files of a checkpoint and of a data set are damaged in random places, half of the
checkpoints with a manifest that matches; each must load or raise an InputError, within 10 s.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from captioner import Captioner, InputError, train
from captioner.checkpoints import checkpoint
from captioner.data.demo.dataset import write_demo
from captioner.data.images import load_image
from captioner.data.readers import read_captions
from captioner.training.config import TrainConfig

SECONDS = 10  # after which loading a damaged file is a hang
CHUNK = 50  # damaged files per process
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "embedding_size": 32,
    "image_size": 32,
    "attention": True,
    "min_count": 1,
}
QUIET: dict[str, Any] = {
    "workers": 0,
    "samples": 0,
    "heatmaps": 0,
    "device": "cpu",
    "precision": "float32",
}


def train_run(run: str) -> None:
    options: dict[str, Any] = {"data": "data", "run": run, "resume": "auto", "epochs": 4}
    train(TrainConfig.from_options(**options, **SIZES, **QUIET))


def in_child(work: Callable[[], None]) -> int:
    """Start `work` in a forked process without output, which spares the imports; return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            work()
            status = 0
        finally:
            os._exit(status)
    return child


# ---- kills --------------------------------------------------------------------------------------


def newest_step(run: Path) -> int:
    """Return the step of the newest intact checkpoint, as resuming finds it; 0 without any."""
    steps = [0]
    for name in ("last", "best"):
        try:
            state = checkpoint.load(run / name).training_state()
        except InputError:
            continue
        steps.append(state["progress"]["step"])
    return max(steps)


def same_weights(left: Path, right: Path) -> bool:
    a, b = (checkpoint.load(run / "last").weights for run in (left, right))
    return a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


def kill_training(kills: int, draw: random.Random) -> Counter[str]:
    """Kill training this many times, in as many runs as that takes; return the counts."""
    counts: Counter[str] = Counter()
    straight, run = Path("checkpoints/straight"), Path("checkpoints/killed")
    started = time.monotonic()
    os.waitpid(in_child(lambda: train_run("straight")), 0)
    seconds, step = time.monotonic() - started, 0
    while counts["kills"] < kills:
        child = in_child(lambda: train_run("killed"))
        deadline = time.monotonic() + draw.uniform(0, 0.6 * seconds)
        ended = status = 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counts["kills"] += 1
            found = newest_step(run)
            counts["checkpoints lost"] += found < step
            step = found
            continue
        counts["runs that failed"] += status != 0
        counts["runs finished"] += status == 0
        counts["runs that differ"] += status == 0 and not same_weights(straight, run)
        shutil.rmtree(run)
        step = 0
    return counts


# ---- damaged files ------------------------------------------------------------------------------


def damage(content: bytes, draw: random.Random) -> bytes:
    """Return content with one kind of damage at a random place."""
    place, size = draw.randrange(len(content) + 1), draw.choice((1, 4, 64))
    noise = draw.randbytes(size)
    return draw.choice(
        (
            content[:place],
            content[:place] + content[place + size :],
            content[:place] + noise + content[place:],
            content[:place] + noise + content[place + size :],
            content[:place] + content[place : place + size] * 3 + content[place + size :],
        )
    )


def sign(directory: Path) -> None:
    """Make the manifest match the files, as a stranger could."""
    path = directory / checkpoint.MANIFEST
    names = [file.name for file in directory.iterdir() if file != path]
    sums = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    path.write_text(json.dumps(sums))


def use_checkpoint(directory: Path) -> None:
    captioner = Captioner.from_pretrained(directory, "cpu")
    captioner.caption(str(next(Path("data/val").iterdir())), max_length=5)
    checkpoint.load(directory).training_state()


def use_data(directory: Path) -> None:
    for example in read_captions(directory, on_error="skip").examples[:20]:
        load_image(example.path)


def outcome(source: Path, use: Callable[[Path], None], signed: bool, draw: random.Random) -> str:
    """Damage one file of a copy of `source`, and use the copy."""
    with TemporaryDirectory(dir=".") as temporary:
        copy = shutil.copytree(source, Path(temporary) / "copy")
        files = sorted(path for path in copy.rglob("*") if path.is_file())
        file = draw.choice(files)
        file.write_bytes(damage(file.read_bytes(), draw))
        if signed:
            sign(copy)
        signal.alarm(SECONDS)
        try:
            use(copy)
        except InputError:
            return "refused"
        except TimeoutError:
            return "hangs"
        except Exception as error:
            return f"crashes: {type(error).__name__} after damage to {file.name}"
        finally:
            signal.alarm(0)
    return "loaded"


def expire(*_: object) -> None:
    raise TimeoutError


def damage_files(count: int, seed: int) -> Counter[str]:
    """Use this many damaged copies, in forked processes; return the counts of what happened."""
    counts: Counter[str] = Counter()
    results = Path("results.jsonl")

    def work(numbers: Sequence[int]) -> None:
        signal.signal(signal.SIGALRM, expire)
        with results.open("w", buffering=1) as file:
            for number in numbers:
                draw = random.Random(f"{seed} {number}")
                sources = (
                    (Path("checkpoints/straight/last"), use_checkpoint),
                    (Path("few"), use_data),
                )
                source, use = sources[number % 2]
                signed = use is use_checkpoint and number % 4 == 0
                file.write(json.dumps(outcome(source, use, signed, draw)) + "\n")

    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        _, status = os.waitpid(in_child(lambda numbers=numbers: work(numbers)), 0)  # type: ignore[misc]
        found = [json.loads(line) for line in results.read_text().splitlines()]
        counts.update(found)
        counts["files"] += len(found)
        counts["processes that died"] += status != 0
    return counts


def show(counts: Counter[str], started: float) -> None:
    for name, number in sorted(counts.items()):
        print(f"{number:6} {name}")
    print(f"{time.monotonic() - started:.0f} s since the start", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked process would wait for the threads of its parent
    with TemporaryDirectory() as temporary:
        os.chdir(temporary)
        write_demo(Path("data"), train=48, val=8, test=4)
        write_demo(Path("few"), train=4, val=2, test=2)
        started = time.monotonic()
        counts = kill_training(arguments.kills, random.Random(arguments.seed))
        counts["runs that differ"] += 0
        show(counts, started)
        damaged = damage_files(arguments.files, arguments.seed)
        show(damaged, started)
        os.chdir("/")
    bad = ("lost", "differ", "failed", "hangs", "crashes", "died")
    everything = [*counts.items(), *damaged.items()]
    sys.exit(any(number and any(word in name for word in bad) for name, number in everything))


if __name__ == "__main__":
    main()
