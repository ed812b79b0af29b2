"""The warning about collapsed hinge losses."""

import re

import pytest
import torch

from captioner.models.linking.contrastive import RELATIVE
from captioner.models.losses import Loss
from captioner.options import flag_of, option_names
from captioner.tasks.linking.collapse import STEPS, CollapseWatch
from captioner.tasks.linking.joint import JointJob
from captioner.tasks.linking.joint_task import JOINT
from captioner.tasks.linking.linear import LinearJob
from captioner.tasks.linking.linear_task import LINEAR
from captioner.tasks.linking.mcnn import McnnJob
from captioner.tasks.linking.mcnn_task import MCNN
from captioner.tasks.linking.regression import RegressionJob
from captioner.tasks.linking.regression_task import REGRESSION
from captioner.tasks.linking.spatial import SpatialJob
from captioner.tasks.linking.spatial_task import SPATIAL
from captioner.training.config import option_groups


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


@pytest.mark.parametrize(
    ("task", "job"),
    [
        (LINEAR, LinearJob),
        (JOINT, JointJob),
        (MCNN, McnnJob),
        (REGRESSION, RegressionJob),
        (SPATIAL, SpatialJob),
    ],
)
def test_advice_names_only_flags_of_the_system(task, job):
    advised = set(re.findall(r"--[a-z-]+", f"{job.advice} {job.unspaced_advice}"))
    groups = option_groups(task).values()
    assert advised <= {flag_of(name) for group in groups for name in option_names(group)}
