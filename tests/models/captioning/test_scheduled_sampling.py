"""Scheduled sampling: the input words, and the loss after them against the equations."""

from dataclasses import replace

import pytest
import torch

from captioner.devices import products_in
from captioner.models.captioning.scheduled_sampling import previous_words
from tests.support.equations import CAPTIONS, WORDS, show_and_tell, show_attend_and_tell


class ConstantModel:
    """A model whose scores are always the same."""

    def __init__(self, scores):
        self.scores = scores

    def start(self, features, _expected_steps):
        return {}, {"hidden": torch.zeros(len(features), 1)}

    def step(self, tokens, state, _memory):
        assert len(tokens) == len(state["hidden"])
        return self.scores.repeat(len(tokens), 1), state, None


def test_at_probability_0_nothing_is_drawn(attention, tiny_model, make_batch):
    model, batch = tiny_model(attention), make_batch(CAPTIONS)
    before = torch.get_rng_state()
    inputs = previous_words(model, batch.features, batch)
    assert torch.equal(inputs, batch.tokens[..., :-1])
    assert torch.equal(model.loss(batch).value, model.loss(replace(batch, sampling_prob=0.0)).value)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probability", [0.2, 0.7, 1.0])
def test_words_are_replaced_with_the_sampling_probability(probability, make_batch):
    torch.manual_seed(0)
    batch = replace(make_batch([[[4] * 40] * 50] * 3), sampling_prob=probability)
    scores = torch.zeros(15)
    scores[[0, 1, 2, 9]] = 50.0  # padding, start and end are never inputs
    inputs = previous_words(ConstantModel(scores), batch.features, batch)
    assert (inputs[..., 0] == 1).all()
    assert set(inputs[..., 1:].unique().tolist()) <= {4, 9}
    assert (inputs[..., 1:] == 9).float().mean().item() == pytest.approx(probability, abs=0.02)
    assert inputs.shape == batch.tokens[..., 1:].shape


def test_replacements_are_drawn_from_the_models_distribution(make_batch):
    torch.manual_seed(0)
    batch = replace(make_batch([[[4] * 50] * 100] * 2), sampling_prob=1.0)
    scores = torch.randn(15)
    inputs = previous_words(ConstantModel(scores), batch.features, batch)[..., 1:]
    frequencies = torch.bincount(inputs.flatten(), minlength=15) / inputs.numel()
    assert frequencies[:3].sum() == 0
    torch.testing.assert_close(frequencies[3:], scores[3:].softmax(0), rtol=0, atol=0.02)


def test_the_loss_after_sampled_inputs_equals_the_equations(
    attention, tiny_model, make_batch, monkeypatch
):
    """With every input replaced by the likeliest word after the preceding inputs."""
    monkeypatch.setattr(torch.Tensor, "multinomial", lambda self, _: self.argmax(-1, keepdim=True))
    model = tiny_model(attention, label_smoothing=0.0, coverage_weight=0.0)
    batch = replace(make_batch(CAPTIONS), sampling_prob=1.0)
    equations = show_attend_and_tell if attention else show_and_tell
    expected, changed = torch.zeros(()), 0
    for image, texts in zip(batch.features, CAPTIONS, strict=True):
        for caption in texts:
            own = []
            for _ in caption:
                rows, _ = equations(model, image, own)
                own.append(3 + rows[-1][3:].argmax().item())
            changed += own != caption
            rows, _ = equations(model, image, own)
            for row, target in zip(rows, [*caption, 2], strict=True):
                expected = expected - row[target] / WORDS
    assert changed > 3
    loss = model.loss(batch)
    assert loss.count == WORDS
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads, expected_grads = (torch.autograd.grad(x, parameters) for x in (loss.value, expected))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_parameter_gets_a_gradient_after_sampled_inputs(
    attention, precision, tiny_model, make_batch
):
    model = tiny_model(attention, trained_from=0, dropout=0.2).train()
    with products_in(precision, torch.device("cpu")):
        loss = model.loss(replace(make_batch(CAPTIONS, images=True), sampling_prob=0.5))
    loss.value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
