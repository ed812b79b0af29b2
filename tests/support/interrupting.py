"""Interrupt runs, and compare them with uninterrupted ones."""

import itertools
import json
import os

import torch

from captioner.checkpoints import checkpoint
from captioner.tasks.captioning.batches import EpochBatches
from tests.support import tiny


def assert_same_rows(left, right):
    left, right = ([tiny.untimed(row) for row in rows] for rows in (left, right))
    assert left == right


def interrupt_at(step, signum, monkeypatch, owner=EpochBatches, name="__call__"):
    """Send a signal to this process before training step `step`, counted from 1 over all epochs.

    owner, name: the class and its method that yields an epoch's batches.
    """
    original, steps = getattr(owner, name), itertools.count(1)

    def interrupted(self, epoch, first):
        for batch in original(self, epoch, first):
            if next(steps) == step:
                os.kill(os.getpid(), signum)
            yield batch

    monkeypatch.setattr(owner, name, interrupted)


def assert_same_run(left, right):
    for name in ("last", "best"):
        a, b = checkpoint.load(left / name), checkpoint.load(right / name)
        assert a.weights.keys() == b.weights.keys()
        for key, value in a.weights.items():
            assert torch.equal(value, b.weights[key]), key
        a, b = a.training_state(), b.training_state()
        assert a["schedule"] == b["schedule"]
        assert torch.equal(a["generators"][0]["cpu"], b["generators"][0]["cpu"])
        assert a["optimizer"]["param_groups"] == b["optimizer"]["param_groups"]
        for number, values in a["optimizer"]["state"].items():
            for key, value in values.items():
                assert torch.equal(value, b["optimizer"]["state"][number][key])
        timed = ("sums", "history")
        plain = [{k: v for k, v in s["progress"].items() if k not in timed} for s in (a, b)]
        assert plain[0] == plain[1]
    assert_same_rows(
        *(
            [json.loads(row) for row in (run / "log.jsonl").read_text().splitlines()]
            for run in (left, right)
        )
    )
