"""--compile without a working compiler is an error that says so."""

import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.exc import InternalTorchDynamoError
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler

from captioner.errors import InputError
from captioner.models.captioning.build import CompiledSteps
from tests.support import tiny
from tests.support.processes import ROOT


def compiled(monkeypatch, error):
    """Return CompiledSteps whose compilation raises an error; the model is never used."""

    def fail(*_):
        raise error

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    model = torch.nn.Linear(1, 1)
    model.encoder, model.has_attention, model.step = None, False, None
    return CompiledSteps(model)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (InvalidCxxCompiler(), "No working C.. compiler found in .*; install a C.. compiler and"),
        (
            CppCompileError(["g++", "x.cpp"], "x.cpp:1:9: fatal error: omp.h: No such file\nhere"),
            "failed: x.cpp:1:9: fatal error: omp.h: No such file; install a C.. compiler",
        ),
    ],
)
def test_a_missing_or_broken_compiler(cause, message, monkeypatch):
    with pytest.raises(InputError, match=message):
        compiled(monkeypatch, InductorError(cause, None)).step(None, {}, {})


def test_any_other_error_of_the_compiler_is_a_bug(monkeypatch):
    with pytest.raises(InternalTorchDynamoError):
        compiled(monkeypatch, InternalTorchDynamoError("x")).step(None, {}, {})


@pytest.mark.slow
def test_the_command_without_a_compiler_ends_with_one_sentence(tmp_path_factory, tmp_path):
    run = tiny.run(tmp_path_factory, attention=True)
    image = sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))[0]
    command = [sys.executable, "-m", "captioner", "caption", str(image), "--checkpoint", str(run)]
    variables = {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [*command, "--compile", "--device", "cpu"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: compiling the model failed: No working C++ compiler found")
