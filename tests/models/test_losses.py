"""The losses against sums written out word by word and against torch."""

import math

import pytest
import torch
import torch.nn.functional as F

from captioner.models import losses
from captioner.models.losses import Loss, Targets, attention_coverage, caption_cross_entropy

TARGETS = torch.tensor([4, 2, 2, 0, 3, 1, 4])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layer():
    """Outputs (7, 6), weight (5, 6) and bias (5,), all with gradients."""
    parts = draw(7, 6), draw(5, 6, seed=1), draw(5, seed=2)
    return [part.requires_grad_() for part in parts]


@pytest.fixture(params=[1, 3, 7, 100])
def rows(request, monkeypatch):
    """The number of words whose scores are computed at once."""
    monkeypatch.setitem(losses.ROWS_AT_ONCE, "cpu", request.param)


@pytest.mark.usefixtures("rows")
def test_cross_entropy_is_the_summed_negative_log_probability(layer):
    expected = [
        -math.log(math.exp(row[target]) / sum(math.exp(value) for value in row))
        for row, target in zip(F.linear(*layer).tolist(), TARGETS.tolist(), strict=True)
    ]
    smoothed, plain = caption_cross_entropy(*layer, Targets.one_word(TARGETS))
    assert plain.tolist() == pytest.approx(expected, rel=1e-5)
    assert smoothed.item() == plain.sum().item()
    assert smoothed.requires_grad
    assert not plain.requires_grad


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_gradients_equal_torch(layer, smoothing):
    smoothed, plain = caption_cross_entropy(*layer, Targets.one_word(TARGETS, smoothing))
    expected = F.cross_entropy(
        F.linear(*layer), TARGETS, reduction="sum", label_smoothing=smoothing
    )
    assert smoothed.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(plain, caption_cross_entropy(*layer, Targets.one_word(TARGETS))[1])
    grads = torch.autograd.grad(smoothed * 3, layer)
    expected_grads = torch.autograd.grad(expected * 3, layer)
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_multiply_the_loss_of_each_word(layer, smoothing):
    weights = draw(7, seed=3)  # some negative
    weighted, plain = caption_cross_entropy(*layer, Targets.one_word(TARGETS, smoothing, weights))
    word_losses = F.cross_entropy(
        F.linear(*layer), TARGETS, reduction="none", label_smoothing=smoothing
    )
    expected = (word_losses * weights).sum()
    assert weighted.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(plain, caption_cross_entropy(*layer, Targets.one_word(TARGETS))[1])
    grads, expected_grads = (torch.autograd.grad(value, layer) for value in (weighted, expected))
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_targets_of_several_words_equal_dense_targets(layer, smoothing):
    """In any order of the words, and if a word occurs twice."""
    others = torch.tensor([[4, 1], [0, 3], [2, 4], [1, 1], [2, 3], [0, 1], [3, 4]])
    words = torch.cat([TARGETS[:, None], others], 1)
    probs = torch.softmax(draw(7, 3, seed=3), 1) * (1 - smoothing)
    dense = torch.zeros(7, 5).scatter_add_(1, words, probs) + smoothing / 5
    summed, plain = caption_cross_entropy(*layer, Targets(words, probs, smoothing))
    expected = F.cross_entropy(F.linear(*layer), dense, reduction="sum")
    assert summed.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(plain, caption_cross_entropy(*layer, Targets.one_word(TARGETS))[1])
    grads, expected_grads = (torch.autograd.grad(value, layer) for value in (summed, expected))
    torch.testing.assert_close(grads, expected_grads)


def test_autocast_multiplies_in_half_precision_and_sums_in_float32(layer):
    exact, _ = caption_cross_entropy(*layer, Targets.one_word(TARGETS, 0.1))
    with torch.autocast("cpu", torch.bfloat16):
        smoothed, plain = caption_cross_entropy(*layer, Targets.one_word(TARGETS, 0.1))
    assert smoothed.dtype == plain.dtype == torch.float32
    assert smoothed.item() != exact.item()
    assert smoothed.item() == pytest.approx(exact.item(), rel=0.02)
    for gradient, expected in zip(
        torch.autograd.grad(smoothed, layer), torch.autograd.grad(exact, layer), strict=True
    ):
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected, atol=0.05, rtol=0.05)


def test_without_gradients_the_value_is_the_same(layer):
    with torch.no_grad():
        smoothed, _ = caption_cross_entropy(*layer, Targets.one_word(TARGETS, 0.1))
    assert not smoothed.requires_grad
    assert smoothed.item() == pytest.approx(
        caption_cross_entropy(*layer, Targets.one_word(TARGETS, 0.1))[0].item()
    )


def test_coverage_is_summed_over_positions_and_captions_not_averaged():
    received = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 3.0, 0.5]]])
    assert attention_coverage(received).item() == 1 + 4 + 0.25
    four_times = received.repeat(1, 2, 2)
    assert attention_coverage(four_times).item() == 4 * 5.25
    assert attention_coverage(received[0], torch.tensor([5.0, 2.0])).item() == 2 * 5.25


def test_a_loss_has_no_parts_by_default():
    assert Loss(torch.tensor(1.0), 3).parts == {}
