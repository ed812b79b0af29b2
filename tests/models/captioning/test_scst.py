"""Self-critical training: the batch with samples, and its gradient against the expected reward."""

import json
import math
import signal
from itertools import product
from pathlib import Path

import pytest
import torch

import train
from captioner.checkpoints import checkpoint
from captioner.errors import Interrupted
from captioner.metrics.cider_d import CiderD
from captioner.models.captioning.build import build_model
from captioner.models.captioning.options import ModelOptions
from captioner.models.captioning.scst import add_rollouts
from captioner.text.collate import pad_captions
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

PAD, START, END, UNKNOWN = range(4)
CAPTIONS = [  # different numbers of captions and words, over the tiny vocabulary
    [[4, 5, 8, 10], [4, 6, 9], [14]],
    [[4, 7, 9, 11, 12, 13, 14]],
    [[5, 5], [6]],
]


def cider_of(captions, vocabulary_size=15):
    return CiderD.of([[[START, *c, END] for c in texts] for texts in captions], vocabulary_size)


def rows(tokens):
    """The captions of one image as lists of words, without start token and padding."""
    return [[token for token in row if token][1:] for row in tokens.tolist()]


# ---- the batch ----------------------------------------------------------------------------------


def test_references_are_kept_and_samples_weighted_by_their_advantage(
    attention, tiny_model, make_batch
):
    model, batch, cider = tiny_model(attention), make_batch(CAPTIONS), cider_of(CAPTIONS)
    torch.manual_seed(1)
    new, reward = add_rollouts(batch, model, cider.score, 0.3, samples=4, max_length=6)
    assert (
        new.tokens.shape[:2] == new.rollouts.weights.shape == new.rollouts.sampled.shape == (3, 7)
    )
    assert new.features is batch.features
    assert new.ids == batch.ids
    rewards = []
    for b, texts in enumerate(CAPTIONS):
        captions, given = rows(new.tokens[b]), batch.tokens[b : b + 1, :, 1:]
        assert [len(c) for c in captions] == sorted(map(len, captions), reverse=True)
        references = [
            c for c, own in zip(captions, new.rollouts.sampled[b], strict=True) if c and not own
        ]
        assert sorted(references) == sorted([*text, END] for text in texts)
        assert all(new.rollouts.weights[b, ~new.rollouts.sampled[b]] == 0.3)
        samples = [c for c, own in zip(captions, new.rollouts.sampled[b], strict=True) if own]
        assert len(samples) == 4
        assert len({*map(tuple, samples)}) > 1
        assert all(END not in c[:-1] and (c[-1] == END or len(c) == 6) for c in samples)
        scores = cider.score(pad_captions([samples]), given)[0]
        others = [(scores.sum() - score) / 3 for score in scores]
        expected = 0.7 * len(texts) / 4 * (scores - torch.stack(others))
        torch.testing.assert_close(new.rollouts.weights[b, new.rollouts.sampled[b]], expected)
        rewards.append(scores)
    torch.testing.assert_close(reward, torch.stack(rewards).mean())
    lengths = (new.tokens[..., 1:] != PAD).sum(-1)
    assert new.tokens.shape[-1] == 1 + lengths.max()


def test_sampling_leaves_the_model_unchanged(attention, tiny_model, make_batch):
    model, cider = tiny_model(attention, trained_from=0, dropout=0.9).train(), cider_of(CAPTIONS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = make_batch(CAPTIONS, images=True)
    torch.manual_seed(1)
    first, _ = add_rollouts(batch, model, cider.score, 0.1)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.manual_seed(1)
    # Sampling is without dropout in both modes.
    second, _ = add_rollouts(batch, model.eval(), cider.score, 0.1)
    assert not model.training
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.rollouts.weights, second.rollouts.weights)
    third, _ = add_rollouts(batch, model, cider.score, 0.1)
    assert not torch.equal(third.tokens, first.tokens)
    model.train().loss(first).value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ---- the gradient -------------------------------------------------------------------------------


def log_probability(model, features, caption):
    """Log-probability of one image's caption, by `start` and `step`."""
    memory, state = model.start(features[None], 1)
    total = torch.zeros(())
    for word, target in zip([START, *caption], caption, strict=False):
        scores, state, _ = model.step(torch.tensor([word]), state, memory)
        total = total + scores[0].log_softmax(-1)[target]
    return total


def test_the_gradient_is_the_gradient_of_the_expected_reward(attention, tiny_encoder, make_batch):
    """Many samples against all 21 captions of at most two tokens, end token and <unk> included."""
    sizes = {"embedding_size": 5, "hidden_size": 6, "attention_size": 4, "dropout": 0.0}
    options = ModelOptions(attention=attention, coverage_weight=0.0, **sizes)
    model = build_model(tiny_encoder(), 7, options)
    with torch.no_grad():
        model.words.weight.mul_(2)
        model.words.bias[[PAD, START]] = -40  # never in a target, never sampled
    references = [[[4], [4, 5]], [[6, 6]]]
    captions = [[END], *([w, END] for w in range(3, 7)), *map(list, product(range(3, 7), repeat=2))]
    batch, cider = make_batch(references), cider_of(references, 7)
    expected_reward, probability = torch.zeros(()), 0.0
    for b, texts in enumerate(references):
        rewards = cider.score(pad_captions([captions]), batch.tokens[b : b + 1, :, 1:])[0]
        for caption, reward in zip(captions, rewards, strict=True):
            p = log_probability(model, batch.features[b], caption).exp()
            expected_reward = expected_reward + len(texts) * reward * p
            probability += p.item()
    assert probability == pytest.approx(2)
    parameters = [p for p in model.parameters() if p.requires_grad]
    exact = torch.autograd.grad(-expected_reward, parameters)

    torch.manual_seed(0)
    many, _ = add_rollouts(batch, model, cider.score, 0.0, samples=20_000, max_length=2)
    loss = model.loss(many)
    estimate = torch.autograd.grad(loss.value * loss.count, parameters)
    exact, estimate = (torch.cat([g.flatten() for g in gradient]) for gradient in (exact, estimate))
    assert (estimate - exact).norm() < 0.08 * exact.norm()


def test_a_few_steps_raise_the_reward(attention, tiny_model, make_batch):
    model, batch, cider = tiny_model(attention), make_batch(CAPTIONS), cider_of(CAPTIONS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005)
    torch.manual_seed(0)
    rewards = []
    for _ in range(60):  # rewards only, no cross-entropy
        sampled, reward = add_rollouts(batch, model, cider.score, 0.0, samples=100, max_length=8)
        rewards.append(reward.item())
        optimizer.zero_grad()
        model.loss(sampled).value.backward()
        optimizer.step()
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 2


# ---- train.py -----------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    """In an empty working directory: a function that trains there, starting from a trained run."""
    colours, base = tiny.data(tmp_path_factory), tiny.run(tmp_path_factory, attention=True)
    monkeypatch.chdir(tmp_path)
    options = "--attention --hidden-size 64 --embedding-size 64 --image-size 32 --dropout 0.5"
    options = f"{options} {tiny.PLAIN} --epochs 2 --batch-size 5 --learning-rate 1e-3"
    options = f"--data {colours} --start-from {base} --self-critical {options}"

    def call(name, *more):
        train.main(["--run", name, *options.split(), *more])
        return Path("checkpoints") / name

    return call


def test_a_self_critical_run_equals_the_same_run_resumed(work, monkeypatch):
    straight = work("straight", "--cross-entropy-share", "0.2")
    assert checkpoint.load(straight).config["training"]["self_critical"]
    logged = [json.loads(row) for row in (straight / "log.jsonl").read_text().splitlines()]
    assert all(1 < row["reward"] < 10 and math.isfinite(row["loss"]) for row in logged)
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            work("stopped", "--cross-entropy-share", "0.2")
    assert_same_run(work("stopped", "--cross-entropy-share", "0.2", "--resume"), straight)


def test_workers_leave_the_run_unchanged(work):
    assert_same_run(work("workers", "--workers", "2"), work("alone"))
