"""Distillation: soft targets word by word, the student's loss, and train.py with teachers."""

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
from captioner.data.images import Transform
from captioner.data.sources import FunctionSource
from captioner.errors import InputError, Interrupted
from captioner.models.captioning.distillation import add_soft_targets, compute_soft_targets
from captioner.models.captioning.ensemble import Ensemble
from captioner.tasks.captioning.options import CaptioningOptions
from captioner.tasks.captioning.teachers import build_teachers, read_teachers
from captioner.text.vocabulary import Vocabulary
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

CAPTIONS = [  # different numbers of captions and words, over the tiny vocabulary
    [[4, 5, 8, 10], [4, 6, 9], [14]],
    [[4, 7, 9, 11, 12, 13, 14]],
    [[5, 5], [6]],
]
FORBIDDEN = (Vocabulary.PAD, Vocabulary.START)  # never generated


def distributions(model, features, caption, forbidden=()):
    """The distributions (T, V) over the word after each word of a caption, by `step`."""
    memory, state = model.start(features[None], 1)
    rows = []
    for word in caption:
        scores, state, _ = model.step(torch.tensor([word]), state, memory)
        scores[:, list(forbidden)] = -torch.inf
        rows.append(scores[0].softmax(-1))
    return torch.stack(rows)


def soft_targets_of(teacher, batch, **options):
    """The soft targets of the images of a batch."""
    values = batch.images if batch.features is None else batch.features
    images = FunctionSource(lambda indices: values[list(indices)], batch.images is None)
    captions = [
        [[t for t in row if t] for row in texts if any(row)] for texts in batch.tokens.tolist()
    ]
    return compute_soft_targets(teacher, images, captions, **options)


def each_caption(batch):
    """Yield the number of the image, of the caption, and its words with start and end token."""
    for b, c in torch.cartesian_prod(*map(torch.arange, batch.tokens.shape[:2])).tolist():
        if words := [token for token in batch.tokens[b, c].tolist() if token]:
            yield b, c, words


@torch.no_grad()
@pytest.mark.parametrize("several", [False, True])
def test_soft_targets_are_the_teachers_likeliest_words(attention, several, tiny_model, make_batch):
    members = [tiny_model(attention, seed=seed).eval() for seed in (1, 2)]
    members[1].encoder = members[0].encoder
    batch = make_batch(CAPTIONS)
    teacher = Ensemble(members) if several else members[0]
    soft_targets = soft_targets_of(teacher, batch, batch_size=2, top_tokens=4)
    assert [each.tokens.shape for each in soft_targets] == [(3, 5, 4), (1, 8, 4), (2, 3, 4)]
    new = add_soft_targets(batch, soft_targets, 0.3)
    assert new.distillation.weight == 0.3
    assert new.tokens is batch.tokens
    assert new.features is batch.features
    assert new.distillation.tokens.shape == new.distillation.probs.shape == (3, 3, 8, 4)
    for b, c, words in each_caption(batch):
        rows = [
            distributions(each, batch.features[b], words[:-1], FORBIDDEN).log() for each in members
        ]
        expected = (torch.stack(rows).mean(0) if several else rows[0]).softmax(-1)
        probs, likely = expected.topk(4)
        assert new.distillation.tokens[b, c, : len(likely)].tolist() == likely.tolist()
        probs = probs / probs.sum(1, keepdim=True)
        torch.testing.assert_close(
            new.distillation.probs[b, c, : len(probs)], probs, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("images", [False, True])
def test_the_loss_mixes_captions_and_teacher(attention, images, tiny_model, make_batch):
    trained_from = 0 if images else None
    options = {"label_smoothing": 0.2, "coverage_weight": 0.0, "trained_from": trained_from}
    student = tiny_model(attention, seed=1, **options)
    teacher = tiny_model(attention, seed=2).eval()
    batch = make_batch(CAPTIONS, images=images)
    loss = student.eval().loss(add_soft_targets(batch, soft_targets_of(teacher, batch), 0.3))
    total, count = torch.zeros(()), 0
    student_maps, teacher_maps = (batch.features_by(model.encoder) for model in (student, teacher))
    for b, _, words in each_caption(batch):
        logs = distributions(student, student_maps[b], words[:-1]).log()  # (T, V), all 15 words
        true = torch.nn.functional.one_hot(torch.tensor(words[1:]), 15)
        smoothed = 0.8 * true + 0.2 / 15
        target = 0.7 * smoothed + 0.3 * distributions(
            teacher, teacher_maps[b], words[:-1], FORBIDDEN
        )
        total, count = total - (target * logs).sum(), count + len(logs)
    assert loss.count == count
    torch.testing.assert_close(loss.value, total / count, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        loss.parts["cross_entropy"], student.loss(batch).parts["cross_entropy"]
    )


def test_a_student_equal_to_its_teacher_has_no_gradient(attention, tiny_model, make_batch):
    model = tiny_model(attention, coverage_weight=0.0, label_smoothing=0.0)
    with torch.no_grad():
        model.words.bias[list(FORBIDDEN)] = -40
    batch = make_batch(CAPTIONS)
    model.eval().loss(add_soft_targets(batch, soft_targets_of(model, batch), 1.0)).value.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.abs().max() < 1e-3, name
    model.loss(batch).value.backward()
    assert model.words.bias.grad.abs().max() > 1e-2


# ---- train.py -----------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, tmp_path_factory, monkeypatch):
    """In an empty working directory: a function that trains there, and a trained run."""
    colours, base = tiny.data(tmp_path_factory), tiny.run(tmp_path_factory, attention=True)
    monkeypatch.chdir(tmp_path)
    options = f"--data {colours} {tiny.SIZES} {tiny.PLAIN} --epochs 2 --batch-size 5"

    def call(name, *more):
        train.main(["--run", name, *options.split(), *more])
        return Path("checkpoints") / name

    return call, str(base)


def test_a_distilled_run_equals_the_same_run_resumed(work, monkeypatch):
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


def test_a_run_resumes_only_with_its_own_teachers(work):
    call, base = work
    shutil.copytree(base, "teacher")
    call("taught", "--teachers", "teacher", "--epochs", "1")
    other = call("other")
    shutil.rmtree("teacher")
    shutil.copytree(other, "teacher")
    with pytest.raises(InputError, match=r"teachers was .*'path': 'teacher', 'weights': "):
        call("taught", "--teachers", "teacher", "--epochs", "1", "--resume")


def test_incompatible_teachers_are_refused(work, tiny_model):
    call, base = work
    taught = checkpoint.load(Path(base))
    words, seen = taught.vocabulary, Transform(**taught.config["transform"])
    teachers = read_teachers(CaptioningOptions(teachers=(Path(base),)), seen)
    student = tiny_model(attention=True)  # frozen, its encoder is another one
    with pytest.raises(InputError, match="cannot be used: its encoder differs from"):
        build_teachers(teachers, student, words)
    with pytest.raises(InputError, match="cannot be used: its vocabulary differs"):
        build_teachers(teachers, student, Vocabulary(["dog"]))
    with pytest.raises(InputError, match=r"transforms images with Transform\(size=32"):
        read_teachers(CaptioningOptions(teachers=(Path(base),)), replace(seen, size=64))
    with pytest.raises(InputError, match="checkpoint nobody does not exist"):
        call("wrong", "--teachers", "nobody")
    learner = tiny_model(attention=True, trained_from=0)
    teacher = build_teachers(teachers, learner, words)
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
