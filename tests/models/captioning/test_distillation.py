"""What teachers say, written out word by word; and that a student learns it."""

import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train
from captioner.checkpoints import checkpoint
from captioner.data.batches import Source
from captioner.data.images import Transform
from captioner.errors import InputError, Interrupted
from captioner.models.captioning import distillation
from captioner.models.captioning.distillation import add_soft_targets, compute_soft_targets
from captioner.models.captioning.ensemble import Ensemble
from captioner.text.vocabulary import Vocabulary
from captioner.training.teachers import open_teachers
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

CAPTIONS = [  # unequal numbers of captions and of words, over the tiny vocabulary
    [[4, 5, 8, 10], [4, 6, 9], [14]],
    [[4, 7, 9, 11, 12, 13, 14]],
    [[5, 5], [6]],
]
WITHHELD = (Vocabulary.PAD, Vocabulary.START)  # what nobody says


def said(model, features, caption, forbidden=()):
    """The distributions (T, V) over the next word after each of a caption's, by `step`."""
    memory, state = model.start(features[None], 1)
    rows = []
    for word in caption:
        scores, state, _ = model.step(torch.tensor([word]), state, memory)
        scores[:, list(forbidden)] = -torch.inf
        rows.append(scores[0].softmax(-1))
    return torch.stack(rows)


def lessons_of(teacher, batch):
    """As `hear` gives them, of a batch's images."""
    values = batch.images if batch.features is None else batch.features
    images = Source(lambda indices: values[list(indices)], batch.images is None)
    captions = [
        [[t for t in row if t] for row in texts if any(row)] for texts in batch.tokens.tolist()
    ]
    return compute_soft_targets(teacher, images, captions)


def each_caption(batch):
    """Image, caption and its words, start and end among them, one after the other."""
    for b, c in torch.cartesian_prod(*map(torch.arange, batch.tokens.shape[:2])).tolist():
        if words := [token for token in batch.tokens[b, c].tolist() if token]:
            yield b, c, words


@torch.no_grad()
@pytest.mark.parametrize("several", [False, True])
def test_the_teachers_words_are_those_they_hold_likeliest(
    attention, several, tiny_model, make_batch, monkeypatch
):
    monkeypatch.setattr(distillation, "LIKELY", 4)
    members = [tiny_model(attention, seed=seed).eval() for seed in (1, 2)]
    members[1].encoder = members[0].encoder
    batch = make_batch(CAPTIONS)
    monkeypatch.setattr(distillation, "TOGETHER", 2)
    lessons = lessons_of(Ensemble(members) if several else members[0], batch)
    assert [lesson.words.shape for lesson in lessons] == [(3, 5, 4), (1, 8, 4), (2, 3, 4)]
    new = add_soft_targets(batch, lessons, 0.3)
    assert (
        new.distill_weight == 0.3 and new.tokens is batch.tokens and new.features is batch.features
    )
    assert new.teacher_tokens.shape == new.teacher_probs.shape == (3, 3, 8, 4)
    for b, c, words in each_caption(batch):
        rows = [said(each, batch.features[b], words[:-1], WITHHELD).log() for each in members]
        expected = (torch.stack(rows).mean(0) if several else rows[0]).softmax(-1)
        shares, likely = expected.topk(4)
        assert new.teacher_tokens[b, c, : len(likely)].tolist() == likely.tolist()
        shares = shares / shares.sum(1, keepdim=True)
        torch.testing.assert_close(
            new.teacher_probs[b, c, : len(shares)], shares, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("images", [False, True])
def test_what_is_learned_lies_between_captions_and_teacher(
    attention, images, tiny_model, make_batch
):
    trained_from = 0 if images else None
    options = {"label_smoothing": 0.2, "coverage_weight": 0.0, "trained_from": trained_from}
    student = tiny_model(attention, seed=1, **options)
    teacher = tiny_model(attention, seed=2).eval()
    batch = make_batch(CAPTIONS, images=images)
    loss = student.eval().loss(add_soft_targets(batch, lessons_of(teacher, batch), 0.3))
    total, count = torch.zeros(()), 0
    ours, theirs = (batch.features_by(model.encoder) for model in (student, teacher))
    for b, _, words in each_caption(batch):
        logs = said(student, ours[b], words[:-1]).log()  # (T, V), all 15 words
        true = torch.nn.functional.one_hot(torch.tensor(words[1:]), 15)
        smoothed = 0.8 * true + 0.2 / 15
        target = 0.7 * smoothed + 0.3 * said(teacher, theirs[b], words[:-1], WITHHELD)
        total, count = total - (target * logs).sum(), count + len(logs)
    assert loss.count == count
    torch.testing.assert_close(loss.value, total / count, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        loss.parts["cross_entropy"], student.loss(batch).parts["cross_entropy"]
    )


def test_who_knows_what_the_teacher_knows_has_nothing_to_learn(attention, tiny_model, make_batch):
    model = tiny_model(attention, coverage_weight=0.0, label_smoothing=0.0)
    with torch.no_grad():
        model.words.bias[list(WITHHELD)] = -40
    batch = make_batch(CAPTIONS)
    model.eval().loss(add_soft_targets(batch, lessons_of(model, batch), 1.0)).value.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.abs().max() < 1e-3, name
    model.loss(batch).value.backward()
    assert model.words.bias.grad.abs().max() > 1e-2


# ---- train.py -----------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    """An empty working directory; returns how to train there, and a run that has learned."""
    colours, base = tiny.data(tmp_path_factory), tiny.run(tmp_path_factory, attention=True)
    monkeypatch.chdir(tmp_path)
    options = f"--data {colours} {tiny.SIZES} {tiny.PLAIN} --epochs 2 --batch-size 5"

    def call(name, *more):
        train.main(["--run", name, *options.split(), *more])
        return Path("checkpoints") / name

    return call, str(base)


def test_a_taught_run_and_the_same_resumed(work, monkeypatch):
    call, base = work
    straight = call("straight", "--teachers", base, base)
    config = checkpoint.load(straight).config
    weights = checkpoint.identity(Path(base))
    assert config["teachers"] == [{"path": base, "weights": weights}] * 2
    logged = [json.loads(row) for row in (straight / "log.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in logged)
    alone = call("alone")
    other, taught = (checkpoint.load(run / "last").weights for run in (alone, straight))
    assert not torch.equal(other["words.weight"], taught["words.weight"])
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch)
        with pytest.raises(Interrupted):
            call("stopped", "--teachers", base, base)
    resumed = call("stopped", "--teachers", base, base, "--resume")
    assert_same_run(resumed, straight)
    with pytest.raises(InputError, match="teachers was"):
        call("stopped", "--teachers", base, "--resume")


def test_a_run_goes_on_with_the_teachers_it_had(work, monkeypatch):
    call, base = work
    shutil.copytree(base, "teacher")
    call("taught", "--teachers", "teacher", "--epochs", "1")
    other = call("other")
    shutil.rmtree("teacher")
    shutil.copytree(other, "teacher")
    with pytest.raises(InputError, match=r"teachers was .*'path': 'teacher', 'weights': "):
        call("taught", "--teachers", "teacher", "--epochs", "1", "--resume")


def test_teachers_who_cannot_teach_are_refused(work, tiny_model):
    call, base = work
    taught = checkpoint.load(Path(base))
    words, seen = taught.vocabulary, Transform(**taught.config["transform"])
    student = tiny_model(attention=True)  # frozen, its encoder is another one
    with pytest.raises(InputError, match="has another encoder than the new model"):
        open_teachers([Path(base)], student, words, seen)
    with pytest.raises(InputError, match="has another vocabulary"):
        open_teachers([Path(base)], student, Vocabulary(["dog"]), seen)
    learner = tiny_model(attention=True, trained_from=0)
    with pytest.raises(InputError, match=r"takes images as Transform\(size=32"):
        open_teachers([Path(base)], learner, words, replace(seen, size=64))
    with pytest.raises(InputError, match="checkpoint nobody does not exist"):
        call("wrong", "--teachers", "nobody")
    teacher = open_teachers([Path(base)], learner, words, seen)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
