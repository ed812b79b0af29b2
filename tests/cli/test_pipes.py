"""Commands whose output is not read to its end, as by `head`, or cannot be written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path):
    """Starts a program of the project with a standard output."""

    def start(program, *words, output, **environment):
        program = ["-m", "captioner"] if program == "captioner" else [ROOT / program]
        return subprocess.Popen(
            [sys.executable, *program, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def unread(process):
    """How the process ends, and what it says, where nobody reads what it prints."""
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_nobody_reads_ends_silently(start, unbuffered, tmp_path_factory):
    words = ["data", tiny.data(tmp_path_factory)]
    process = start("captioner", *words, output=subprocess.PIPE, PYTHONUNBUFFERED=unbuffered)
    assert unread(process) == (128 + signal.SIGPIPE, "")


def test_captions_that_nobody_reads(start, tmp_path_factory):
    run, images = tiny.run(tmp_path_factory, attention=True), tiny.data(tmp_path_factory) / "val"
    words = ["caption", images, "--checkpoint", run, "--device", "cpu"]
    process = start("captioner", *words, output=subprocess.PIPE)
    assert unread(process) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("program", ["captioner", "train.py"])
def test_help_that_nobody_reads(start, program):
    process = start(program, "--help", output=subprocess.PIPE, PYTHONUNBUFFERED="")
    assert unread(process) == (128 + signal.SIGPIPE, "")


def test_a_mistake_is_told_whoever_reads(start):
    process = start("captioner", "data", "gone", output=subprocess.PIPE)
    assert unread(process) == (1, "error: data directory gone does not exist\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written(start, unbuffered, tmp_path_factory):
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        words = ["data", tiny.data(tmp_path_factory)]
        process = start("captioner", *words, output=full, PYTHONUNBUFFERED=unbuffered)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (1, "error: [Errno 28] No space left on device\n")
