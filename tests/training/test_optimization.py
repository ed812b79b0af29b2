"""Optimisation: options, the learning-rate schedule and parameter groups."""

import math

import pytest
from torch import nn

from captioner.errors import InputError
from captioner.tasks.options import TrainingOptions
from captioner.training.optimization import learning_rate_factor, parameter_groups
from captioner.vision.encoders import Encoder, SmallCNN


def reference_factor(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@pytest.mark.parametrize(
    ("warmup", "steps", "warmup_steps"), [(0.1, 100, 10), (0.0, 10, 1), (0.5, 3, 2)]
)
def test_learning_rate_rises_linearly_and_falls_by_a_cosine(warmup, steps, warmup_steps):
    factor = learning_rate_factor(warmup, steps)
    factors = [factor(step) for step in range(steps)]
    assert factors == pytest.approx(
        [reference_factor(s, steps, warmup_steps) for s in range(steps)]
    )
    assert factors[warmup_steps - 1] == max(factors) == 1
    assert min(factors) > 0
    assert factor(steps) == pytest.approx(0)


def test_schedule_of_a_single_step():
    assert learning_rate_factor(0.9, 1)(0) == 1


def test_parameter_groups_separate_encoder_and_matrices():
    options = TrainingOptions(learning_rate=1.5e-3, encoder_learning_rate=1e-4, weight_decay=0.01)
    model = nn.Module()
    model.encoder = Encoder("small_cnn", SmallCNN(8))
    model.layer = nn.Linear(2, 2)
    groups = parameter_groups(model, options)
    assert [[p.ndim for p in group["params"]] for group in groups] == [[2], [1]]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    model.encoder = Encoder("small_cnn", SmallCNN(8), trained_from=3)
    rates = [group["lr"] for group in parameter_groups(model, options)]
    assert rates == [1.5e-3] * 2 + [1e-4] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0, got -0.1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**63}, "seed must be below 2\\*\\*63, got 9223372036854775808"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, got 1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be finite and above 0, got nan"),
        (
            {"encoder_learning_rate": -1.0},
            "encoder_learning_rate must be finite and above 0, got -1.0",
        ),
        ({"clip": 0.0}, "clip must be finite and above 0, got 0.0"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InputError, match=message):
        TrainingOptions(**options)
