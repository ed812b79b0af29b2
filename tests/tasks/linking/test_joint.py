"""Training and evaluating the joint embedding on tiny data."""

import json
import re
import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import captioner
import evaluate
import train
from captioner import Linker, TrainConfig
from captioner import __main__ as command
from captioner.checkpoints import checkpoint
from captioner.checkpoints.runs import read_log
from captioner.data.readers import read_captions
from captioner.errors import InputError, Interrupted
from captioner.metrics.retrieval import pair_accuracy, retrieval_scores
from captioner.models.linking.options import JointOptions
from captioner.tasks.linking import collapse
from captioner.tasks.linking.joint import JointJob, draw_wrong_texts
from captioner.tasks.linking.options import JointTaskOptions
from captioner.tasks.linking.vectors import image_of_caption
from captioner.training.config import EncoderOptions
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

SIZES = {"dimensions": 16, "word_size": 8, "hidden_size": 16, "image_size": 32}
PLAIN = {"device": "cpu", "workers": 0, "precision": "float32", "curves": False}
OPTIONS = {**SIZES, **PLAIN, "text_min_count": 1, "batch_size": 8, "epochs": 2}


def flags(**options):
    words = ["--system", "joint"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        words += [f"--no-{flag}"] if value is False else [f"--{flag}", str(value)]
    return words


@pytest.fixture
def colours(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.data(tmp_path_factory)


def train_python(data, **options):
    return captioner.train(TrainConfig.from_options(system="joint", data=data, **OPTIONS | options))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["infonce", "hinges", "hardest"])
def test_an_encoder_from_scratch_learns_the_colours(colours, loss):
    own = {"warm_up_epochs": 5} if loss == "hardest" else {}
    rates = {"learning_rate": 0.01, "encoder_learning_rate": 0.01, "dropout": 0.0}
    patient = {"epochs": 60, "patience": 60, "average": 0.0}
    result = train_python(colours, loss=loss, run="run", **rates, **patient, **own)
    assert result.run == Path("checkpoints/run")
    assert result.scores["i2t_R@1"] > 80
    images = sorted((colours / "val").glob("*.png"))
    texts = [f"{colour} is all one sees here" for colour in list(tiny.COLOURS)[:7]]
    hits = result.linker.similarity(images, texts).argmax(1) == np.arange(7)
    assert hits.sum() >= 6


def test_scores_agree_with_the_embeddings(colours, capsys):
    result = train_python(colours, run="run")
    evaluate.main("--checkpoint checkpoints/run --split test --device cpu --workers 0".split())
    scores = json.loads(Path("checkpoints/run/evaluation-test/scores.json").read_text())
    examples = read_captions(colours).split("test")
    linker = Linker.from_pretrained("checkpoints/run", "cpu")
    texts = [text for example in examples for text in example.captions]
    cosines = linker.similarity([example.path for example in examples], texts)
    np.testing.assert_allclose(np.linalg.norm(linker.encode_texts(texts), axis=1), 1, rtol=1e-5)
    expected = retrieval_scores(cosines, image_of_caption(examples), "test").numbers
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    assert result.history[-1]["epoch"] == 2
    out = capsys.readouterr().out
    assert "texts/s" in out
    assert "note: training takes only 4 steps; try a smaller --batch-size or more --epochs" in out


def test_unknown_words_are_errors_or_returned(colours):
    linker = train_python(colours, run="run", epochs=1).linker
    with pytest.raises(InputError, match="the texts contain unknown words: 'zebra'"):
        linker.encode_texts("red zebra")
    rows, unknown = linker.encode_texts(["red zebra", "red"], on_unknown="return")
    assert unknown == [["zebra"], []]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    with pytest.raises(InputError, match="must contain at least one known word, got 'zebra'"):
        linker.encode_texts("zebra", on_unknown="return")


def test_resuming_is_exact(colours, monkeypatch):
    words = flags(data=colours, **OPTIONS)
    train.main([*words, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch, JointJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*words, "--run", "stopped"])
    train.main([*words, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/straight"), Path("checkpoints/stopped"))


def test_word_vectors_sentence_vectors_and_an_earlier_run_start_a_model(colours):
    Path("words.txt").write_text("red " + "1 " * 8 + "\nblue " + "-1 0 " * 4 + "\n")
    result = train_python(
        colours, run="a", epochs=1, word_vectors="words.txt", text_vectors=("tf-idf",)
    )
    stored = checkpoint.load(result.run)
    assert stored.config["joint"]["text_vectors"] == ["tf-idf"]
    assert stored.weights["text.weight"].shape[1] > 16
    again = {k: v for k, v in OPTIONS.items() if k != "text_min_count"} | {"epochs": 1}
    train.main(flags(data=colours, start_from=result.run, run="b", **again))
    assert Linker.from_pretrained("checkpoints/b", "cpu").texts.sentences is not None
    with pytest.raises(InputError, match=r"word_vectors must be word2vec, or a \.txt, "):
        train_python(colours, run="c", word_vectors="lsa")
    with pytest.raises(InputError, match="dimensions, but word_size is 5; pass --word-size 8"):
        train_python(colours, run="c", word_vectors="words.txt", word_size=5)


def test_own_image_vectors_need_no_encoder(colours):
    data = read_captions(colours)
    colour = {name: i for i, name in enumerate(tiny.COLOURS)}
    rows = [np.eye(8)[colour[c.split()[0]]] for e in data.examples for c in e.captions]
    np.save("images.npy", rows)
    options = {k: v for k, v in OPTIONS.items() if k != "image_size"}
    rates = {"learning_rate": 0.02, "dropout": 0.0, "epochs": 60, "patience": 60, "average": 0.0}
    own = options | rates | {"image_vectors": "images.npy", "run": "own"}
    result = captioner.train(TrainConfig.from_options(system="joint", data=colours, **own))
    assert result.scores["i2t_R@1"] > 80
    assert not [name for name in checkpoint.load(result.run).weights if "encoder" in name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.1}, "--margin needs --loss hinges, hardest or random-negative"),
        ({"loss": "hinges", "temperature": 0.1}, "--temperature needs --loss infonce"),
        ({"loss": "hinges", "warm_up_epochs": 1}, "--warm-up-epochs needs --loss hardest"),
        ({"heatmaps": 3}, "--heatmaps has no effect with --system joint"),
        ({"start_from": "x", "max_words": 9}, "--max-words cannot be combined with --start-from"),
        ({"image_vectors": "x.npy", "encoder": "resnet18"}, "--encoder cannot be combined with"),
        ({"attention": True}, "unknown training option 'attention' for --system joint"),
        ({"watch": "bleu-4"}, "watch must be one of rsum_equal_texts, rsum, i2t_r@1,"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.from_options(system="joint", **options)


def test_the_warm_up_counts_epochs(colours, monkeypatch):
    seen, original = [], JointJob._load

    def load(self, items, warm, *others):
        seen.append(warm)
        return original(self, items, warm, *others)

    monkeypatch.setattr(JointJob, "_load", load)
    train_python(colours, run="run", loss="hardest", warm_up_epochs=1)
    assert seen == [False] * 2 + [True] * 2
    assert torch.isfinite(checkpoint.load("checkpoints/run").weights["log_scale"])


@pytest.mark.parametrize("loss", ["hardest", "infonce"])
def test_a_collapsed_run_says_what_to_do(colours, loss, monkeypatch, capsys):
    monkeypatch.setattr(collapse, "STEPS", 3)
    monkeypatch.setattr(collapse, "TOLERANCE", 9.0)
    own = {"warm_up_epochs": 0} if loss == "hardest" else {}
    train_python(colours, run="run", loss=loss, **own)
    found = capsys.readouterr().out.count("--loss infonce, or, with --loss hardest, more")
    assert found == (loss == "hardest")
    history = read_log(Path("checkpoints/run/log.jsonl"))
    assert ("relative_loss" in history[-1]) == (loss == "hardest")


def rows_of(items):
    return [row for item in items for row in item.rows]


def test_every_epoch_uses_each_caption_once_in_chunks(colours, monkeypatch):
    """Images are encoded once per batch, even if several of their captions are in it."""
    seen, original = [], JointJob._load

    def load(self, items, *others):
        batch = original(self, items, *others)
        assert len(batch.images) == len(set(batch.ids)) == len({item.image for item in items})
        owners = [self.examples[self.image_of_text[row]].id for item in items for row in item.rows]
        count = len(owners)
        assert [batch.ids[i] for i in batch.image_of_text] == owners * 2  # the rest: short texts
        captions = {example.id: set(example.captions) for example in self.examples}
        texts = [self.examples[self.image_of_text[row]].captions[row % 2] for row in rows_of(items)]
        assert batch.own[:, :count].tolist() == [
            [text in captions[id] for text in texts] for id in batch.ids
        ]
        seen.append(items)
        return batch

    monkeypatch.setattr(JointJob, "_load", load)
    train_python(colours, run="run", captions_per_batch=1, batch_size=24)
    assert [len(items) for items in seen] == [24, 8] * 2
    rows = [rows_of(items) for items in seen]
    assert sorted(rows[0] + rows[1]) == sorted(rows[2] + rows[3]) == list(range(32))
    assert rows[0] != rows[2]
    seen.clear()
    train_python(colours, run="first", captions_per_image=1, epochs=1)
    assert sorted(item.rows for items in seen for item in items) == [(2 * i,) for i in range(16)]
    vocabulary = checkpoint.load("checkpoints/first").vocabulary
    assert "is" in vocabulary.words
    assert "and" not in vocabulary.words  # of second captions


def test_wrong_texts_are_drawn_evenly_from_other_images_among_used_captions():
    owners = np.array([0, 0, 0, 1, 2, 2, 4])
    used = np.array([0, 1, 3, 4, 6])
    drawn = np.array([draw_wrong_texts(owners, used, (seed, 0)) for seed in range(3000)])
    for row in used:
        allowed = [other for other in used if owners[other] != owners[row]]
        counts = np.bincount(drawn[:, row], minlength=7)
        assert counts[allowed].sum() == 3000
        assert counts[allowed].min() > 0.8 * 3000 / len(allowed)


def test_a_recipe_replaces_defaults_and_flags_override_it(capsys):
    config = TrainConfig.from_options(
        system="joint", recipe="favre2017", margin=0.5, encoder="vgg11"
    )
    assert (config.model.similarity, config.model.margin, config.model.dropout) == ("dot", 0.5, 0.0)
    assert (config.task.max_words, config.task.captions_per_image) == (16, 1)
    assert (config.training.batch_size, config.training.average) == (64, 0.0)
    grouped = TrainConfig(
        encoder=EncoderOptions(encoder="vgg11"),
        model=JointOptions(margin=0.5),
        task=JointTaskOptions(recipe="Favre2017"),
    )
    assert grouped == config
    with pytest.raises(SystemExit):
        train.main("--system joint --recipe favre2017 --help".split())
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # where a line broke
    assert "With --recipe favre2017, the defaults are --loss random-negative --margin 1.0" in shown
    assert "activation tanh --no-text-layer --no-word-sum --dimensions 256" in shown
    assert "--no-short-texts --opposites" in shown
    assert "maximum text length in words; longer texts are truncated [16]" in shown


def test_a_recipe_is_stored_and_repeated(colours):
    sizes = {"dimensions": 16, "hidden_size": 16, "image_size": 32, "epochs": 2}
    config = TrainConfig.from_options(
        system="joint", data=colours, recipe="favre2017", run="recipe", **sizes, **PLAIN
    )
    result = captioner.train(config)
    stored = checkpoint.load(result.run).config
    assert stored["joint"]["recipe"] == "favre2017"
    assert stored["model"]["loss"] == "random-negative"
    again = TrainConfig.from_file(result.run, run="recipe", **PLAIN)
    assert (again.model, again.task, again.training) == (config.model, config.task, config.training)
    train_python(colours, run="other", epochs=1)
    changed = TrainConfig.from_file("checkpoints/other", recipe="favre2017")
    assert (changed.model.dimensions, changed.task.recipe) == (256, "favre2017")
    assert changed.training.batch_size == 64


def test_dot_products_score_as_in_evaluation(colours):
    options = {"similarity": "dot", "loss": "random-negative", "margin": 1.0, "run": "dot"}
    linker = train_python(colours, **options).linker
    examples = read_captions(colours).split("test")
    texts = [text for example in examples for text in example.captions]
    scores = linker.similarity([example.path for example in examples], texts)
    assert not np.allclose(np.linalg.norm(linker.encode_texts(texts), axis=1), 1)
    evaluate.main("--checkpoint checkpoints/dot --split test --device cpu --workers 0".split())
    found = json.loads(Path("checkpoints/dot/evaluation-test/scores.json").read_text())
    owners = image_of_caption(examples)
    assert found["pair_accuracy"] == pytest.approx(pair_accuracy(scores, owners))
    expected = retrieval_scores(scores, owners, "test").numbers
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_run_ends_with_a_page_and_commands_to_search(colours, capsys):
    result = train_python(colours, run="run", epochs=1)
    lines = capsys.readouterr().out.splitlines()
    assert "images and captions: checkpoints/run/matches.html" in lines
    page = Path("checkpoints/run/matches.html").read_text()
    assert re.findall(r'class="query">([^<]*)<', page)[0] == "red is all one sees here"
    best = result.linker.similarity(
        sorted((colours / "val").glob("*.png")), ["red is all one sees here"]
    )[:, 0].max()
    shown = re.search(r'class="query">.*?class="score">([^ <]*)', page, re.DOTALL)
    assert float(shown[1]) == pytest.approx(best, abs=1e-3)
    start = next(i for i, line in enumerate(lines) if "captioner index" in line)
    write, search = (shlex.split(line)[3:] for line in lines[start : start + 2])
    command.main(write)
    capsys.readouterr()
    command.main(search)
    assert "val/" in capsys.readouterr().out
