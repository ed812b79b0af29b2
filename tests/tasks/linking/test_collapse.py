"""The warning about collapsed hinge losses."""

import pytest
import torch

from captioner.models.linking.contrastive import RELATIVE
from captioner.models.losses import Loss
from captioner.tasks.linking.collapse import STEPS, CollapseWatch


def step(relative, margin=0.2):
    return Loss(torch.tensor(2 * margin * relative), 8, {RELATIVE: torch.tensor(relative)})


def watch_steps(relatives):
    watch = CollapseWatch("do this")
    for relative in relatives:
        watch.observe(step(relative))


def test_a_collapse_is_reported_once_with_its_value_and_advice(capsys):
    watch_steps([1.004] * STEPS + [0.996] * 3 * STEPS)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        "warning: the loss has collapsed: for 200 steps it was within 0.5 % of 0.4, its value if "
        "all pairs have the same score; do this"
    )


@pytest.mark.parametrize("other", [0.99, 1.01, float("nan")])
def test_one_step_outside_the_tolerance_starts_the_count_anew(other, capsys):
    watch_steps(([1.0] * (STEPS - 1) + [other]) * 3)
    assert not capsys.readouterr().out


def test_losses_that_cannot_collapse_are_not_watched(capsys):
    watch = CollapseWatch("do this")
    for _ in range(2 * STEPS):
        watch.observe(Loss(torch.tensor(0.4), 8))
    assert not capsys.readouterr().out
