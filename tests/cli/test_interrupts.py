"""Ctrl-C while a command imports its modules ends it silently, as at any other time."""

import signal
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

# Raises KeyboardInterrupt when a module is imported, as Ctrl-C at that moment does.
INTERRUPT = """
import runpy, sys

class Interrupt:
    @staticmethod
    def find_spec(name, *_):
        if name == module:
            raise KeyboardInterrupt

module, program, *words = sys.argv[1:]
sys.argv = [program, *words]
sys.meta_path.insert(0, Interrupt)
run = runpy.run_path if program.endswith(".py") else runpy.run_module
run(program, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("captioner.cli.train", ["train.py"]),
        ("numpy", ["train.py", "--attention"]),
        ("captioner.cli.evaluate", ["evaluate.py"]),
        ("captioner.checkpoints", ["evaluate.py", "--checkpoint", "x"]),
        ("captioner.cli.caption", ["captioner", "caption", "a.jpg", "--checkpoint", "x"]),
        ("torch", ["captioner", "caption", "a.jpg", "--checkpoint", "x"]),
    ],
)
def test_interrupted_during_an_import(module, command, tmp_path):
    program = ROOT / command[0] if command[0].endswith(".py") else command[0]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT, module, str(program), *command[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")
