"""Hard attention against the equations and the enumeration of all draws; learning by reward."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from captioner.data.batches import Batch, Rollouts
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.devices import products_in
from captioner.models.captioning.build import build_model
from captioner.models.captioning.hard_attention import LocationSampler
from captioner.models.captioning.options import ModelOptions
from tests.support.equations import CAPTIONS, WORDS, show_attend_and_tell


@pytest.fixture
def hard_model(tiny_model):
    """A function that builds a small model with hard attention, in training mode."""

    def build(**options):
        plain = {"label_smoothing": 0.0, "coverage_weight": 0.0}
        return tiny_model(True, hard_attention=True, **plain | options).train()

    return build


def likeliest(attention):
    """The likeliest position instead of a drawn one, (B, K, P) -> (B, K, 1)."""
    return attention.argmax(-1, keepdim=True)


# ---- the equations ------------------------------------------------------------------------------


def loss_by_hand(model, batch, sampler, baseline):
    """The negative of equation 11 per word, for the positions that were sampled."""
    coverage, smoothing = model.options.coverage_weight, model.options.label_smoothing
    value = reward = torch.zeros(())
    count = 0
    for b, (image, texts) in enumerate(zip(batch.features, CAPTIONS, strict=True)):
        for c, caption in enumerate(texts):
            weight = 1.0 if batch.rollouts is None else batch.rollouts.weights[b, c]
            is_reference = batch.rollouts is None or not batch.rollouts.sampled[b, c]
            positions = [sampler.steps[t][1][b, c, 0].item() for t in range(len(caption) + 1)]

            def look(t, attention, positions=positions, drawn=sampler.drawn[b, c]):
                return F.one_hot(torch.tensor(positions[t]), 12).float() if drawn else attention

            rows, maps = show_attend_and_tell(model, image, caption, look)
            words = [row[target] for row, target in zip(rows, [*caption, 2], strict=True)]
            uniform = sum(row.mean() for row in rows)
            value = value - weight * ((1 - smoothing) * sum(words) + smoothing * uniform)
            if is_reference:
                value = value + coverage * weight * ((1 - sum(maps)) ** 2).sum()
                count += len(words)
            for t, attention in enumerate(maps):
                value = value + sampler.entropy_weight * (attention * attention.log()).sum()
                if sampler.drawn[b, c]:
                    to_come = sum(word.detach() - baseline for word in words[t:])
                    reward = reward - attention[positions[t]].log() * weight * to_come
    return (value + sampler.score_weight * (reward - reward.detach())) / count


@pytest.mark.parametrize(
    ("share", "weighted"), [(0.0, False), (0.5, False), (1.0, False), (0.5, True)]
)
def test_loss_and_gradients_equal_the_equations(share, weighted, hard_model, make_batch):
    smoothing = 0.0 if weighted else 0.1
    model, batch = hard_model(label_smoothing=smoothing, coverage_weight=0.2), make_batch(CAPTIONS)
    if weighted:
        weights = torch.tensor([[0.7, -0.4, 2.0], [-1.5, 9.0, 9.0], [0.3, 0.6, 9.0]])
        sampled = torch.tensor([[False, True, False], [True, False, False], [False, False, True]])
        batch = replace(batch, rollouts=Rollouts(weights, sampled))
    model.baseline.fill_(-1.5)
    sampler = LocationSampler(batch, drawn_share=share, score_weight=0.7, entropy_weight=0.3)
    loss = model.loss(batch, sampler)
    expected = loss_by_hand(model, batch, sampler, -1.5)
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    grads, expected_grads = (torch.autograd.grad(x, parameters) for x in (loss.value, expected))
    torch.testing.assert_close(grads, expected_grads, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, -4.0])
def test_the_expected_gradient_is_that_of_the_expected_loss(baseline, hard_model, make_batch):
    """Over all combinations of positions, each weighted by its probability."""
    model, caption = hard_model(), [4, 5]
    batch = make_batch([[caption]])
    batch = replace(batch, features=batch.features[..., :1, :3])  # three positions
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected, mean_grads = torch.zeros(()), [torch.zeros_like(p) for p in parameters]
    for positions in itertools.product(range(3), repeat=3):
        looks = [F.one_hot(torch.tensor(position), 3).float() for position in positions]
        rows, maps = show_attend_and_tell(
            model, batch.features[0], caption, lambda t, _, looks=looks: looks[t]
        )
        probability = math.prod(a[p] for a, p in zip(maps, positions, strict=True))
        log_prob = sum(row[word] for row, word in zip(rows, [*caption, 2], strict=True))
        expected = expected - probability * log_prob / 3
        remaining = iter(positions)
        sampler = LocationSampler(
            batch,
            drawn_share=1.0,
            score_weight=1.0,
            entropy_weight=0.0,
            draw=lambda _, remaining=remaining: torch.tensor([[[next(remaining)]]]),
        )
        model.baseline.fill_(baseline)
        grads = torch.autograd.grad(model.loss(batch, sampler).value, parameters)
        for mean_grad, grad in zip(mean_grads, grads, strict=True):
            mean_grad += probability.detach() * grad
    expected_grads = torch.autograd.grad(expected, parameters)
    for mean_grad, expected_grad in zip(mean_grads, expected_grads, strict=True):
        torch.testing.assert_close(mean_grad, expected_grad, rtol=1e-3, atol=1e-5)


def test_positions_are_drawn_with_the_probability_of_their_attention():
    torch.manual_seed(0)
    attention = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25]])
    batch = Batch((0, 1), torch.ones(2, 20000, 3, dtype=torch.long), (20000, 20000))
    sampler = LocationSampler(batch)
    seen = sampler(attention[:, None].expand(-1, 20000, -1))
    for image, weights in enumerate(attention):
        assert sampler.drawn[image].float().mean().item() == pytest.approx(0.5, abs=0.02)
        looks = seen[image][sampler.drawn[image]]
        assert set(looks.flatten().tolist()) == {0.0, 1.0}
        assert (looks.sum(-1) == 1).all()
        torch.testing.assert_close(looks.mean(0), weights, rtol=0, atol=0.02)
        soft = seen[image][~sampler.drawn[image]]
        assert torch.equal(soft, weights.expand_as(soft))


def test_the_baseline_is_a_moving_average_over_words_with_sampled_positions(hard_model, make_batch):
    torch.manual_seed(1)
    model, batch = hard_model(), make_batch(CAPTIONS)
    moving = -math.log(15)
    assert model.baseline.item() == pytest.approx(moving)
    for _ in range(2):
        sampler = LocationSampler(batch)
        model.update_statistics(model.loss(batch, sampler).statistics)
        words = []
        for b, texts in enumerate(CAPTIONS):
            for c, caption in enumerate(texts):
                if sampler.drawn[b, c]:
                    steps = sampler.steps
                    rows, _ = show_attend_and_tell(
                        model,
                        batch.features[b],
                        caption,
                        lambda t, _, b=b, c=c, steps=steps: F.one_hot(steps[t][1][b, c, 0], 12),
                    )
                    pairs = zip(rows, [*caption, 2], strict=True)
                    words += [row[target].item() for row, target in pairs]
        assert 0 < len(words) < WORDS
        moving = 0.9 * moving + 0.1 * sum(words) / len(words)
        assert model.baseline.item() == pytest.approx(moving, rel=1e-5)


def test_batches_without_a_finite_mean_leave_the_baseline(hard_model, make_batch):
    model, batch = hard_model(), make_batch(CAPTIONS)
    before = model.baseline.clone()
    no_words = LocationSampler(batch, drawn_share=0.0)
    model.update_statistics(model.loss(batch, no_words).statistics)
    broken = replace(batch, features=batch.features * math.nan)
    every_word = LocationSampler(broken, drawn_share=1.0, draw=likeliest)
    model.update_statistics(model.loss(broken, every_word).statistics)
    assert torch.equal(model.baseline, before)


# ---- decoding, training, state ------------------------------------------------------------------


@pytest.mark.parametrize("expected_steps", [1, 1000])
def test_steps_attend_softly_and_return_the_weights(expected_steps, hard_model, features):
    model, maps, caption = hard_model().eval(), features(2), [4, 5, 6]
    memory, state = model.start(maps, expected_steps)
    for number in range(2):
        rows, expected = show_attend_and_tell(model, maps[number], caption)
        at = {key: value[number : number + 1] for key, value in memory.items()}
        alone = {key: value[number : number + 1] for key, value in state.items()}
        if "word_gates" in memory:
            at["word_gates"] = memory["word_gates"]
        for word, row, attention in zip([1, *caption], rows, expected, strict=True):
            scores, alone, seen = model.step(torch.tensor([word]), alone, at)
            torch.testing.assert_close(scores[0].log_softmax(-1), row, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(seen.flatten(), attention)


def test_in_evaluation_the_loss_attends_softly_and_draws_nothing(hard_model, make_batch):
    model, batch = hard_model().eval(), make_batch(CAPTIONS)
    log_prob = 0.0
    for image, texts in zip(batch.features, CAPTIONS, strict=True):
        for caption in texts:
            rows, _ = show_attend_and_tell(model, image, caption)
            log_prob += sum(r[w].item() for r, w in zip(rows, [*caption, 2], strict=True))
    before, generator = model.baseline.clone(), torch.get_rng_state()
    loss = model.loss(batch)
    assert loss.value.item() == pytest.approx(-log_prob / WORDS, rel=1e-4)
    assert "entropy" not in loss.parts
    assert loss.statistics is None
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(model.baseline, before)


def test_every_parameter_gets_a_gradient(tiny_model, make_batch):
    model = tiny_model(True, hard_attention=True, trained_from=0, dropout=0.2).train()
    loss = model.loss(make_batch(CAPTIONS, images=True))
    loss.value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert set(loss.parts) == {"cross_entropy", "coverage", "entropy"}
    assert not any(part.requires_grad for part in loss.parts.values())
    assert 0 < loss.parts["entropy"] < math.log(16)


def test_padding_leaves_the_loss_and_bfloat16_approximates_it(hard_model, make_batch):
    model, batch = hard_model(), make_batch(CAPTIONS)
    tokens = F.pad(batch.tokens, (0, 3))
    wider = replace(batch, tokens=tokens)
    values = []
    for precision, padded in (("float32", batch), ("float32", wider), ("bfloat16", batch)):
        torch.manual_seed(0)
        sampler = LocationSampler(padded, draw=likeliest)
        with products_in(precision, torch.device("cpu")):
            values.append(model.loss(padded, sampler).value)
    torch.testing.assert_close(values[0], values[1])
    assert values[2].item() == pytest.approx(values[0].item(), rel=0.1)


def test_hard_attention_loads_the_weights_of_soft_attention(tiny_model):
    soft, hard = tiny_model(True, seed=1), tiny_model(True, hard_attention=True)
    assert hard.state_dict().keys() == soft.state_dict().keys() | {"baseline"}
    hard.load_state_dict(soft.state_dict(), strict=False)
    for key, value in soft.state_dict().items():
        assert torch.equal(hard.state_dict()[key], value)


class NoEncoder(torch.nn.Module):
    channels = 6


def test_rewards_alone_train_the_attention():
    """The caption names the one of five positions that is marked: only attending to it shows which.

    Every caption has sampled positions, so that no gradient reaches the attention otherwise.
    """
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_size": 16, "annotation_size": 16, "attention_size": 8}
    plain = {"dropout": 0.0, "label_smoothing": 0.0}
    options = ModelOptions(attention=True, hard_attention=True, **sizes, **plain)
    model = build_model(NoEncoder(), 9, options)
    for layer in (
        model.initial_hidden,
        model.initial_cell,
    ):  # the mean feature would name the image
        torch.nn.init.zeros_(layer.weight)
        layer.requires_grad_(False)
    names, marks = torch.eye(5).expand(5, 5, 5), 2 * torch.eye(5)[:, None]
    maps = torch.cat([names, marks], dim=1)[:, :, None]  # (5, 6, 1, 5)
    tokens = torch.tensor([[[1, 4 + position, 2]] * 20 for position in range(5)])
    batch = Batch(tuple(range(5)), tokens, features=maps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(250):
        loss = model.loss(batch, LocationSampler(batch, drawn_share=1.0))
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    found = decode(model.eval(), maps, DecodingOptions("greedy"))
    assert [best.tokens for (best,) in found] == [(4 + position, 2) for position in range(5)]
    looks = [best.attention[0].argmax() for (best,) in found]
    # The fifth image can be named by elimination.
    assert sum(look == position for position, look in enumerate(looks)) >= 4
