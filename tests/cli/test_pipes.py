"""Commands whose output is closed early, as by `head`, or cannot be written."""

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
    """A function that starts a program with a given standard output."""

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


def close_output(process):
    """Close the process's output unread; returns its exit code and standard error."""
    process.stdout.close()
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_output_ends_a_command_silently(start, unbuffered, tmp_path_factory):
    words = ["data", tiny.data(tmp_path_factory)]
    process = start("captioner", *words, output=subprocess.PIPE, PYTHONUNBUFFERED=unbuffered)
    assert close_output(process) == (128 + signal.SIGPIPE, "")


def test_closed_output_ends_captioning_silently(start, tmp_path_factory):
    run, images = tiny.run(tmp_path_factory, attention=True), tiny.data(tmp_path_factory) / "val"
    words = ["caption", images, "--checkpoint", run, "--device", "cpu"]
    process = start("captioner", *words, output=subprocess.PIPE)
    assert close_output(process) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("program", ["captioner", "train.py"])
def test_closed_output_ends_help_silently(start, program):
    process = start(program, "--help", output=subprocess.PIPE, PYTHONUNBUFFERED="")
    assert close_output(process) == (128 + signal.SIGPIPE, "")


def test_a_mistake_is_reported_although_output_is_closed(start):
    process = start("captioner", "data", "gone", output=subprocess.PIPE)
    message = "error: data set gone does not exist; check the path\n"
    assert close_output(process) == (1, message)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_to_a_full_disk(start, unbuffered, tmp_path_factory):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        words = ["data", tiny.data(tmp_path_factory)]
        process = start("captioner", *words, output=full, PYTHONUNBUFFERED=unbuffered)
        _, stderr = process.communicate(timeout=120)
    message = "error: No space left on device; free some space or choose another disk\n"
    assert (process.returncode, stderr) == (1, message)
