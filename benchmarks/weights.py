"""Hashes of trained weights, to check that a change preserves the numerics.

    python -m benchmarks.weights --output before.json    # before the change
    python -m benchmarks.weights --compare before.json   # after the change

Four small runs of 40 steps on demo data are trained on one CPU thread: attention, Show and Tell,
self-critical training and distillation, both of which start from the first. Hashes can be compared
only between runs on one machine with the same versions of torch and its libraries.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from captioner.data.demo.dataset import write_demo

TRAIN = Path(__file__).parents[1] / "train.py"
OPTIONS = "--workers 0 --device cpu --epochs 2 --batch-size 16 --seed 0 --samples 0 --heatmaps 0"
RUNS = {
    "attention": "--attention",
    "show-and-tell": "",
    "self-critical": "--attention --start-from checkpoints/attention --self-critical",
    "distilled": "--attention --teachers checkpoints/attention",
}


def hash_weights(directory: Path) -> dict[str, str]:
    """Train the four runs in `directory`; return the SHA-256 of each run's last weights."""
    write_demo(directory / "demo", train=320, val=20, test=20)
    hashes = {}
    for name, options in RUNS.items():
        command = [sys.executable, str(TRAIN), "--data", "demo", "--run", name, "--no-curves"]
        done = subprocess.run(
            [*command, *OPTIONS.split(), *options.split()],
            cwd=directory,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TRAIN.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"training {name} failed:\n{done.stdout}")
        weights = directory / "checkpoints" / name / "last" / "model.safetensors"
        hashes[name] = hashlib.sha256(weights.read_bytes()).hexdigest()
        print(f"{name:14} {hashes[name]}", flush=True)
    return hashes


def differences(hashes: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the names of runs whose hashes differ or are missing in one of the two."""
    names = {**expected, **hashes}
    return [name for name in names if hashes.get(name) != expected.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the hashes as JSON")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="fail if the hashes differ from this file's"
    )
    arguments = parser.parse_args()
    expected = json.loads(arguments.compare.read_text()) if arguments.compare else None
    with tempfile.TemporaryDirectory() as directory:
        hashes = hash_weights(Path(directory))
    if arguments.output:
        arguments.output.write_text(json.dumps(hashes, indent=1) + "\n")
    if expected is not None:
        if changed := differences(hashes, expected):
            raise SystemExit(f"weights differ from {arguments.compare}: {', '.join(changed)}")
        print(f"all weights are those of {arguments.compare}")


if __name__ == "__main__":
    main()
