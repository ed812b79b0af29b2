"""Fixtures of the training tests: a working directory with runs on the tiny data."""

from pathlib import Path

import pytest

import train
from tests.support import tiny


@pytest.fixture
def train_run(tmp_path, tmp_path_factory, monkeypatch):
    """Change to an empty directory; return a function that trains a named run there."""
    colours = str(tiny.data(tmp_path_factory))
    monkeypatch.chdir(tmp_path)

    def call(name, *options):
        train.main(["--data", colours, "--run", name, *tiny.OPTIONS, *options])
        return Path("checkpoints") / name

    return call
