"""Runs of the linear map on the colours, and the weights of their encoder."""

from pathlib import Path

import pytest
import torch

import train
from captioner.vision.encoders import SmallCNN
from tests.support import tiny

PLAIN = {"image_size": 32, "text_min_count": 1, "workers": 0, "device": "cpu"}
RANKING = {
    **{"solver": "ranking", "epochs": 3, "batch_size": 5, "precision": "float32"},
    **{"curves": False, "dimensions": 12},
}
SOLVERS = {"cca": PLAIN, "ranking": PLAIN | RANKING}


def flags(options):
    """The options of `TrainConfig.from_options` as words of a command line."""
    words = ["--system", "linear"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        words += [f"--no-{flag}"] if value is False else [f"--{flag}", str(value)]
    return words


def encoder_weights(factory: pytest.TempPathFactory) -> Path:
    """Return a file of small_cnn weights, which is written once per session."""
    path = factory.getbasetemp() / "small-cnn.pth"
    if not path.exists():
        generator = torch.random.get_rng_state()
        torch.manual_seed(3)
        torch.save(SmallCNN().state_dict(), path)
        torch.random.set_rng_state(generator)
    return path


def run(factory: pytest.TempPathFactory, solver: str = "cca") -> Path:
    """Return a run on the colours, trained once; tests must not write into it."""
    base, name = factory.getbasetemp(), f"linear-{solver}"
    directory = base / "checkpoints" / name
    if not directory.exists():
        sources = {"data": tiny.data(factory), "encoder_weights": encoder_weights(factory)}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(base)
            train.main(flags({**sources, **SOLVERS[solver], "run": name}))
    return directory
