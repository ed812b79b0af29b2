"""The losses against sums written out word by word."""

import math

import pytest
import torch
import torch.nn.functional as F

from captioner.losses import Loss, attention_coverage, caption_cross_entropy


@pytest.fixture
def scores():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0)) * 3


TARGETS = torch.tensor([4, 2, 2, 0, 3, 1, 4])


def test_cross_entropy_is_the_summed_negative_log_probability(scores):
    expected = 0.0
    for row, target in zip(scores.tolist(), TARGETS.tolist(), strict=True):
        expected -= math.log(math.exp(row[target]) / sum(math.exp(value) for value in row))
    smoothed, plain = caption_cross_entropy(scores, TARGETS)
    assert plain.item() == pytest.approx(expected, rel=1e-5)
    assert smoothed.item() == plain.item()


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_label_smoothing_spreads_a_share_over_the_whole_vocabulary(scores, smoothing):
    smoothed, plain = caption_cross_entropy(scores, TARGETS, smoothing)
    expected = F.cross_entropy(scores, TARGETS, reduction="sum", label_smoothing=smoothing)
    assert smoothed.item() == pytest.approx(expected.item(), rel=1e-6)
    assert plain.item() == pytest.approx(caption_cross_entropy(scores, TARGETS)[1].item())


def test_half_precision_scores_are_summed_in_float32(scores):
    half = scores.bfloat16()
    smoothed, plain = caption_cross_entropy(half, TARGETS, 0.1)
    assert smoothed.dtype == plain.dtype == torch.float32
    assert plain.item() == pytest.approx(caption_cross_entropy(half.float(), TARGETS)[1].item())


def test_coverage_is_summed_over_positions_and_captions_not_averaged():
    received = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 3.0, 0.5]]])
    assert attention_coverage(received).item() == 1 + 4 + 0.25
    four_times = received.repeat(1, 2, 2)
    assert attention_coverage(four_times).item() == 4 * 5.25


def test_a_loss_has_no_parts_unless_told():
    assert Loss(torch.tensor(1.0), 3).parts == {}
