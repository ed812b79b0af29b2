"""Hard attention against the equations, against all that could be drawn; and that it learns."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from captioner.data.batches import Batch
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.devices import products_in
from captioner.models.captioning import hard_attention as locations
from captioner.models.captioning import show_attend_and_tell as model_code
from captioner.models.captioning.build import build_model
from captioner.models.captioning.hard_attention import LocationSampler
from captioner.models.captioning.options import ModelOptions
from tests.support.equations import CAPTIONS, WORDS, show_attend_and_tell


@pytest.fixture
def hard_model(tiny_model):
    """A small model with hard attention, in training."""

    def build(**options):
        smoothing = {"label_smoothing": 0.0, "coverage_weight": 0.0}
        return tiny_model(True, hard_attention=True, **smoothing | options).train()

    return build


@pytest.fixture
def drawn(monkeypatch):
    """The Draws of each loss that is computed."""
    kept = []

    def keep(batch):
        kept.append(LocationSampler(batch))
        return kept[-1]

    monkeypatch.setattr(model_code, "LocationSampler", keep)
    return kept


# ---- the equations ------------------------------------------------------------------------------


def loss_by_hand(model, batch, draws, baseline):
    """Equation 11 word by word, for the places that were drawn; to minimise, per word."""
    coverage, smoothing = model.options.coverage_weight, model.options.label_smoothing
    value = reward = torch.zeros(())
    count = 0
    for b, (image, texts) in enumerate(zip(batch.features, CAPTIONS, strict=True)):
        for c, caption in enumerate(texts):
            counts = 1.0 if batch.weights is None else batch.weights[b, c]
            given = batch.sampled is None or not batch.sampled[b, c]
            places = [draws.steps[t][1][b, c, 0].item() for t in range(len(caption) + 1)]

            def look(t, attention, places=places, drawn=draws.drawn[b, c]):
                return F.one_hot(torch.tensor(places[t]), 12).float() if drawn else attention

            rows, maps = show_attend_and_tell(model, image, caption, look)
            words = [row[target] for row, target in zip(rows, [*caption, 2], strict=True)]
            uniform = sum(row.mean() for row in rows)
            value = value - counts * ((1 - smoothing) * sum(words) + smoothing * uniform)
            if given:
                value = value + coverage * counts * ((1 - sum(maps)) ** 2).sum()
                count += len(words)
            for t, attention in enumerate(maps):
                value = value + locations.ENTROPY_WEIGHT * (attention * attention.log()).sum()
                if draws.drawn[b, c]:
                    to_come = sum(word.detach() - baseline for word in words[t:])
                    reward = reward - attention[places[t]].log() * counts * to_come
    return (value + locations.SCORE_WEIGHT * (reward - reward.detach())) / count


@pytest.mark.parametrize(
    ("share", "weighted"), [(0.0, False), (0.5, False), (1.0, False), (0.5, True)]
)
def test_the_loss_and_its_gradients_are_the_equations(
    share, weighted, hard_model, make_batch, drawn, monkeypatch
):
    monkeypatch.setattr(locations, "DRAWN", share)
    monkeypatch.setattr(locations, "ENTROPY_WEIGHT", 0.3)
    monkeypatch.setattr(locations, "SCORE_WEIGHT", 0.7)
    smoothing = 0.0 if weighted else 0.1
    model, batch = hard_model(label_smoothing=smoothing, coverage_weight=0.2), make_batch(CAPTIONS)
    if weighted:
        weights = torch.tensor([[0.7, -0.4, 2.0], [-1.5, 9.0, 9.0], [0.3, 0.6, 9.0]])
        sampled = torch.tensor([[False, True, False], [True, False, False], [False, False, True]])
        batch = replace(batch, weights=weights, sampled=sampled)
    model.baseline.fill_(-1.5)
    loss = model.loss(batch)
    expected = loss_by_hand(model, batch, drawn[0], -1.5)
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours, by_hand = (torch.autograd.grad(value, parameters) for value in (loss.value, expected))
    for one, other in zip(ours, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("baseline", [0.0, -4.0])
def test_the_gradient_is_the_expected_one(baseline, hard_model, make_batch, monkeypatch):
    """Over all that can be drawn, each weighed by its chance: that of the expected loss."""
    monkeypatch.setattr(locations, "DRAWN", 1.0)
    monkeypatch.setattr(locations, "ENTROPY_WEIGHT", 0.0)
    monkeypatch.setattr(locations, "SCORE_WEIGHT", 1.0)
    model, caption = hard_model(), [4, 5]
    batch = make_batch([[caption]])
    batch = replace(batch, features=batch.features[..., :1, :3])  # three places
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected, ours = torch.zeros(()), [torch.zeros_like(p) for p in parameters]
    for places in itertools.product(range(3), repeat=3):
        looks = [F.one_hot(torch.tensor(place), 3).float() for place in places]
        rows, maps = show_attend_and_tell(
            model, batch.features[0], caption, lambda t, _, looks=looks: looks[t]
        )
        chance = math.prod(a[place] for a, place in zip(maps, places, strict=True))
        log_prob = sum(row[word] for row, word in zip(rows, [*caption, 2], strict=True))
        expected = expected - chance * log_prob / 3
        told = iter(places)
        monkeypatch.setattr(locations, "_draw", lambda _, told=told: torch.tensor([[[next(told)]]]))
        model.baseline.fill_(baseline)
        for gradient, part in zip(
            ours, torch.autograd.grad(model.loss(batch).value, parameters), strict=True
        ):
            gradient += chance.detach() * part
    for one, other in zip(ours, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_places_are_drawn_as_often_as_the_attention_says():
    torch.manual_seed(0)
    attention = torch.tensor([[0.1, 0.0, 0.6, 0.3], [0.25, 0.25, 0.25, 0.25]])
    draws = LocationSampler(
        Batch((0, 1), torch.ones(2, 20000, 3, dtype=torch.long), (20000, 20000))
    )
    seen = draws(attention[:, None].expand(-1, 20000, -1))
    for image, weights in enumerate(attention):
        assert draws.drawn[image].float().mean().item() == pytest.approx(0.5, abs=0.02)
        looks = seen[image][draws.drawn[image]]
        assert set(looks.flatten().tolist()) == {0.0, 1.0} and (looks.sum(-1) == 1).all()
        torch.testing.assert_close(looks.mean(0), weights, rtol=0, atol=0.02)
        expected = seen[image][~draws.drawn[image]]
        assert torch.equal(expected, weights.expand_as(expected))


def test_the_baseline_is_a_moving_average_of_the_drawn_words(hard_model, make_batch, drawn):
    torch.manual_seed(1)
    model, batch = hard_model(), make_batch(CAPTIONS)
    moving = -math.log(15)
    assert model.baseline.item() == pytest.approx(moving)
    for _ in range(2):
        model.loss(batch)
        words = []
        for b, texts in enumerate(CAPTIONS):
            for c, caption in enumerate(texts):
                if drawn[-1].drawn[b, c]:
                    steps = drawn[-1].steps
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


def test_a_broken_batch_leaves_the_baseline(hard_model, make_batch, monkeypatch):
    model, batch = hard_model(), make_batch(CAPTIONS)
    before = model.baseline.clone()
    monkeypatch.setattr(locations, "DRAWN", 0.0)  # nothing to take the mean of
    model.loss(batch)
    monkeypatch.setattr(locations, "_draw", lambda a: a.argmax(-1, keepdim=True))
    monkeypatch.setattr(locations, "DRAWN", 1.0)
    model.loss(replace(batch, features=batch.features * math.nan))
    assert torch.equal(model.baseline, before)


# ---- what it does -------------------------------------------------------------------------------


@pytest.mark.parametrize("expected_steps", [1, 1000])
def test_a_step_sees_what_it_may_expect_and_tells_the_weights(expected_steps, hard_model, features):
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


def test_not_in_training_the_loss_is_that_of_the_steps(hard_model, make_batch, drawn):
    model, batch = hard_model().eval(), make_batch(CAPTIONS)
    log_prob = 0.0
    for image, texts in zip(batch.features, CAPTIONS, strict=True):
        for caption in texts:
            rows, _ = show_attend_and_tell(model, image, caption)
            log_prob += sum(r[w].item() for r, w in zip(rows, [*caption, 2], strict=True))
    before = model.baseline.clone()
    assert model.loss(batch).value.item() == pytest.approx(-log_prob / WORDS, rel=1e-4)
    assert not drawn and torch.equal(model.baseline, before)


def test_every_parameter_gets_a_gradient(tiny_model, make_batch):
    model = tiny_model(True, hard_attention=True, trained_from=0, dropout=0.2).train()
    loss = model.loss(make_batch(CAPTIONS, images=True))
    loss.value.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert set(loss.parts) == {"cross_entropy", "coverage", "entropy"}
    assert not any(part.requires_grad for part in loss.parts.values())
    assert 0 < loss.parts["entropy"] < math.log(16)


def test_padding_and_lower_precision(hard_model, make_batch, monkeypatch):
    monkeypatch.setattr(locations, "_draw", lambda a: a.argmax(-1, keepdim=True))
    model, batch = hard_model(), make_batch(CAPTIONS)
    tokens = F.pad(batch.tokens, (0, 3))
    wider = replace(batch, tokens=tokens, active_captions=(*batch.active_captions, 0, 0, 0))
    values = []
    for precision, one in (("float32", batch), ("float32", wider), ("bfloat16", batch)):
        torch.manual_seed(0)
        with products_in(precision, torch.device("cpu")):
            values.append(model.loss(one).value)
    torch.testing.assert_close(values[0], values[1])
    assert values[2].item() == pytest.approx(values[0].item(), rel=0.1)


def test_soft_attentions_weights_are_hard_attentions_but_for_the_baseline(tiny_model):
    soft, hard = tiny_model(True, seed=1), tiny_model(True, hard_attention=True)
    assert hard.state_dict().keys() == soft.state_dict().keys() | {"baseline"}
    hard.load_state_dict(soft.state_dict(), strict=False)
    for key, value in soft.state_dict().items():
        assert torch.equal(hard.state_dict()[key], value)


class NoEncoder(torch.nn.Module):
    channels = 6


def test_rewards_alone_teach_where_to_look(monkeypatch):
    """One of five places is marked, and only a look at it tells which, or looks at all others."""
    monkeypatch.setattr(locations, "DRAWN", 1.0)
    torch.manual_seed(0)
    sizes = {"embedding_size": 16, "hidden_size": 16, "annotation_size": 16, "attention_size": 8}
    plain = {"dropout": 0.0, "label_smoothing": 0.0}
    options = ModelOptions(attention=True, hard_attention=True, **sizes, **plain)
    model = build_model(NoEncoder(), 9, options)
    for layer in (model.initial_hidden, model.initial_cell):  # the mean of all places would tell
        torch.nn.init.zeros_(layer.weight)
        layer.requires_grad_(False)
    names, marks = torch.eye(5).expand(5, 5, 5), 2 * torch.eye(5)[:, None]
    maps = torch.cat([names, marks], dim=1)[:, :, None]  # (5, 6, 1, 5)
    tokens = torch.tensor([[[1, 4 + place, 2]] * 20 for place in range(5)])
    batch = Batch(tuple(range(5)), tokens, (20, 20), features=maps)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(250):
        loss = model.loss(batch)
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
    found = decode(model.eval(), maps, DecodingOptions("greedy"))
    assert [best.tokens for (best,) in found] == [(4 + place, 2) for place in range(5)]
    looks = [best.attention[0].argmax() for (best,) in found]
    assert sum(look == place for place, look in enumerate(looks)) >= 4  # the fifth by elimination
