"""Training, evaluating and using the regression of text vectors on tiny data."""

import importlib.util
import json
import signal
from pathlib import Path

import numpy as np
import pytest

import captioner
import evaluate
import train
from captioner import Linker, TrainConfig
from captioner.checkpoints import checkpoint
from captioner.data.readers import read_captions
from captioner.errors import InputError, Interrupted
from captioner.metrics.retrieval import retrieval_scores
from captioner.tasks.linking.regression import RegressionJob
from captioner.tasks.linking.vectors import image_of_caption
from tests.support import linking, tiny
from tests.support.interrupting import assert_same_run, interrupt_at
from tests.support.processes import LAUNCH, ROOT, finish, start

PLAIN = {"device": "cpu", "workers": 0, "precision": "float32", "curves": False, "image_size": 32}
OPTIONS = {**PLAIN, "text_min_count": 1, "text_dimensions": 12, "batch_size": 8, "epochs": 2}
COUNTS = {"text_vectors": ("counts",), "text_dimensions": None}  # all words are equally unlike


def flags(**options):
    words = ["--system", "regression"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        words += [f"--no-{flag}"] if value is False else [f"--{flag}", str(value)]
    return words


@pytest.fixture
def sources(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = str(linking.encoder_weights(tmp_path_factory))
    return {"data": tiny.data(tmp_path_factory), "encoder_weights": weights}


def train_python(sources, **options):
    values = {k: v for k, v in (sources | OPTIONS | options).items() if v is not None}
    return captioner.train(TrainConfig.from_options(system="regression", **values))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ranking", "contrastive", "bce"])
def test_an_encoder_from_scratch_learns_the_colours(sources, loss):
    rates = {"learning_rate": 0.01, "encoder_learning_rate": 0.01, "average": 0.0}
    result = train_python(
        {"data": sources["data"]},
        loss=loss,
        run="run",
        epochs=60,
        patience=60,
        **COUNTS,
        **rates,
    )
    images = sorted((sources["data"] / "val").glob("*.png"))
    texts = list(tiny.COLOURS)[:7]
    hits = result.linker.similarity(images, texts).argmax(1) == np.arange(7)
    assert hits.sum() >= 6


def test_the_command_trains_what_python_trains(sources, capsys):
    result = train_python(sources, run="a")
    train.main(flags(**sources, **OPTIONS, run="b"))
    weights = [checkpoint.load(run).weights for run in (result.run, Path("checkpoints/b"))]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    text = capsys.readouterr().out
    assert "regression of 12 text dimensions from" in text
    assert "queries: " in text
    assert "captioner index" in text


def test_scores_agree_with_the_embeddings(sources):
    train_python(sources, run="run")
    evaluate.main("--checkpoint checkpoints/run --split test --device cpu --workers 0".split())
    scores = json.loads(Path("checkpoints/run/evaluation-test/scores.json").read_text())
    examples = read_captions(sources["data"]).split("test")
    linker = Linker.from_pretrained("checkpoints/run", "cpu")
    texts = [text for example in examples for text in example.captions]
    cosines = linker.similarity([example.path for example in examples], texts)
    expected = retrieval_scores(cosines, image_of_caption(examples), "test").numbers
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    query = linker.encode_query("red - blue")
    red, blue = linker.encode_texts(["red", "blue"])
    np.testing.assert_allclose(query, (red - blue) / np.linalg.norm(red - blue), atol=1e-5)


def test_unknown_words_of_a_query_are_errors(sources):
    linker = train_python(sources, run="run", epochs=1).linker
    with pytest.raises(InputError, match="unknown words: 'bleu' \\(similar: blue\\)"):
        linker.encode_query("red + bleu")
    np.testing.assert_array_equal(linker.encode_query("#red"), linker.encode_query("red"))


@pytest.mark.parametrize("hidden", [0, 8])
def test_resuming_is_exact(sources, monkeypatch, hidden):
    words = flags(**sources, **OPTIONS, hidden_size=hidden, dropout=0.1)
    train.main([*words, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch, RegressionJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*words, "--run", "stopped"])
    train.main([*words, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/straight"), Path("checkpoints/stopped"))


def test_a_run_starts_from_another_with_its_text_vectors(sources):
    first = train_python(sources, run="a", text_vectors=("lsa", "tf-idf"))
    own = {"text_min_count": None, "text_dimensions": None, "start_from": first.run}
    second = train_python({"data": sources["data"]}, **own, run="b")
    text = "red and nothing else"
    np.testing.assert_array_equal(first.linker.encode_texts(text), second.linker.encode_texts(text))


def test_own_image_vectors_need_no_encoder(sources):
    data = read_captions(sources["data"])
    colour = {name: i for i, name in enumerate(tiny.COLOURS)}
    rows = [np.eye(8)[colour[c.split()[0]]] for e in data.examples for c in e.captions]
    np.save("images.npy", rows)
    own = {"image_vectors": "images.npy", "image_size": None, "hidden_size": 16, **COUNTS}
    own |= {"epochs": 60, "patience": 60, "average": 0.0, "learning_rate": 0.03}
    result = train_python({"data": sources["data"]}, **own, run="own")
    assert result.scores["i2t_R@1"] > 80
    assert not [name for name in checkpoint.load(result.run).weights if "encoder" in name]
    evaluate.main("--checkpoint checkpoints/own --device cpu".split())


def test_own_text_vectors_score_splits_but_cannot_search(sources, capsys):
    data = read_captions(sources["data"])
    count = sum(len(example.captions) for example in data.examples)
    np.save("texts.npy", np.random.default_rng(0).normal(size=(count, 6)))
    own = {"text_vectors": ("texts.npy",), "text_min_count": None, "text_dimensions": None}
    train_python(sources, **own, run="own")
    words = "--checkpoint checkpoints/own --device cpu --workers 0".split()
    evaluate.main(words)
    assert "queries:" not in capsys.readouterr().out
    Path("queries.txt").write_text("red\n")
    with pytest.raises(InputError, match="--queries needs a model that encodes texts, but "):
        evaluate.main([*words, "--queries", "queries.txt"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "bce", "margin": 0.1}, "--margin needs --loss ranking"),
        ({"temperature": 0.1}, "--temperature needs --loss contrastive"),
        ({"text_vectors": ["counts"], "text_dimensions": 5}, "--text-dimensions needs one of"),
        ({"text_vectors": ["x.npy"], "text_min_count": 5}, "--text-min-count needs --text-vectors"),
        ({"heatmaps": 3}, "--heatmaps has no effect with --system regression"),
        ({"start_from": "x", "text_vectors": ["lsa"]}, "--text-vectors cannot be combined with"),
        ({"image_vectors": "x.npy", "encoder": "resnet18"}, "--encoder cannot be combined with"),
        ({"word_size": 3}, "unknown training option 'word_size' for --system regression"),
    ],
)
def test_options_without_effect_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainConfig.from_options(system="regression", **options)


@pytest.mark.parametrize("source", ["lda", "doc2vec", "fasttext", "fasttext-tf-idf", "word2vec"])
def test_a_missing_extra_shows_before_data_is_read(sources, source, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=rf"{source} needs gensim; run pip install 'captioner\[li"):
        train_python(sources | {"data": "gone"}, text_vectors=(source,))


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ranking", "contrastive"])
def test_two_processes_train_one_model(sources, tmp_path, loss):
    options = flags(**sources, **OPTIONS, loss=loss, run="two")
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    printed = finish(start(*LAUNCH, *place, "--", ROOT / "train.py", *options, cwd=tmp_path))
    assert printed.count("best epoch: ") == 1
    assert Linker.from_pretrained(tmp_path / "checkpoints" / "two").encode_texts("red").any()
