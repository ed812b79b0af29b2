"""Training the autoencoder and the classifier: labels, starting points, resuming, options."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import captioner
import train
from captioner import InputError, TrainConfig
from captioner.checkpoints import checkpoint
from captioner.data.readers import read_captions
from captioner.errors import Interrupted
from captioner.models.relation.articles import ArticleReader
from captioner.models.relation.options import Head
from captioner.tasks.relation.job import RelationJob, build_reader
from captioner.tasks.relation.options import RelationTaskOptions
from captioner.tasks.relation.scores import contradictions, read_split, shuffled_images
from tests.support import relation, tiny
from tests.support.interrupting import assert_same_run, interrupt_at


@pytest.fixture
def data(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return relation.data(tmp_path_factory)


def train_one(data, run, *words):
    train.main([*relation.PLAIN, "--data", str(data), "--run", run, *words])
    return checkpoint.load(Path("checkpoints") / run)


# ---- the texts of a split -----------------------------------------------------------------------


def test_labels_become_levels_and_texts_without_labels_are_pairs(data):
    examples = read_captions(data).split("val")
    reader = build_reader(RelationTaskOptions(text_min_count=1), examples)
    split = read_split(examples, reader, [Head.parse("cmi=0,0.5,1"), Head.parse("sc=-1,0,1")])
    one = [[-1, -1], [2, -1], [1, -1], [0, -1], [-1, 2], [-1, 0]]
    assert split.labels.tolist() == one * len(examples)
    assert split.image_of_text.tolist() == np.repeat(np.arange(len(examples)), 6).tolist()
    assert split.pairs.tolist() == list(range(0, len(split.labels), 6))
    assert sorted([*split.pairs, *split.labelled]) == list(range(len(split.labels)))


def test_all_texts_are_pairs_if_all_have_labels(data):
    rows = [json.loads(line) for line in (data / "relations.jsonl").read_text().splitlines()]
    Path("some").mkdir()
    for row in rows[1:3]:
        (Path("some") / row["image"]).write_bytes((data / row["image"]).read_bytes())
    lines = "".join(json.dumps(row) + "\n" for row in rows[1:3])
    (Path("some") / "relations.jsonl").write_text(lines)
    examples = read_captions(Path("some")).split("train")
    reader = ArticleReader(build_reader(RelationTaskOptions(text_min_count=1), examples).vocabulary)
    assert read_split(examples, reader, [Head.parse("x=0,1")]).pairs.tolist() == [0, 1]


def test_words_are_counted_in_distinct_sentences(data):
    examples = read_captions(data).split("train")
    every = build_reader(RelationTaskOptions(text_min_count=1), examples)
    assert {"red", "image", "here"} <= set(every.vocabulary.words)
    sentences = build_reader(RelationTaskOptions(text_min_count=len(tiny.COLOURS) + 1), examples)
    assert set(sentences.vocabulary.words) == {"is", "it", "one", "sees", "here"} - {"one"} | {
        word for word in ("one",) if word in sentences.vocabulary
    }


def test_no_image_keeps_its_place_if_images_are_shuffled():
    for count in (2, 3, 10, 101):
        order = shuffled_images(count)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_classifier_learns_what_a_text_says_about_its_image(tmp_path_factory):
    scores = checkpoint.load(relation.run(tmp_path_factory)).config["scores"]
    assert scores["cmi_accuracy"] > 0.5  # by chance 0.33
    assert scores["sc_accuracy"] > 0.65  # by chance 0.5


@pytest.mark.slow
def test_the_autoencoder_reconstructs_unseen_pairs(tmp_path_factory):
    run = relation.run(tmp_path_factory, "autoencoder")
    scores = checkpoint.load(run).config["scores"]
    assert scores["text_error"] < 0.6
    assert scores["image_error"] < 0.97
    assert (run / "reconstructions.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_classifier_keeps_the_vectors_of_an_autoencoder_with_a_frozen_encoder(
    data, tmp_path_factory
):
    weights = ["--encoder-weights", str(relation.run(tmp_path_factory))]
    short = ["--epochs", "1", "--learning-rate", "0.01"]
    source = ["--recipe", "autoencoder", "--heatmaps", "0", "--run", "source", *weights]
    train.main([*relation.PLAIN, "--data", str(data), *source, *short])
    before = checkpoint.load(Path("checkpoints/source")).weights
    plain = [word for word in relation.PLAIN if word not in ("--text-min-count", "1")]
    start = ["--start-from", "checkpoints/source", "--run", "started"]
    train.main([*plain, "--data", str(data), *start, *short])
    after = checkpoint.load(Path("checkpoints/started")).weights
    kept = ("words.weight", "sentence.weight_ih_l0", "matching.weight", "image.weight")
    changed = ("matches.weight", "text.weight_ih_l0", "article.weight")
    for name in (*kept, *changed):
        same = torch.equal(before[f"articles.{name}"], after[f"articles.{name}"])
        assert same == (name in kept), name


@pytest.mark.slow
def test_a_classifier_starts_from_the_weights_of_an_autoencoder(data, tmp_path_factory):
    source = relation.run(tmp_path_factory, "autoencoder")
    before = checkpoint.load(source).weights
    words = ["--start-from", str(source), "--epochs", "1", "--learning-rate", "1e-9"]
    plain = [word for word in relation.PLAIN if word not in ("--text-min-count", "1")]
    train.main([*plain, "--data", str(data), "--run", "a", *words])
    after = checkpoint.load(Path("checkpoints/a")).weights
    for name, value in before.items():
        if not name.startswith("encoder.") and "norm" not in name:  # they follow the batches
            assert torch.allclose(after[name].float(), value.float(), atol=1e-6), name
    heads = ["--heads", "cmi=0,0.5,1 sc=-1,1 third=0,1,2,3"]
    train.main([*plain, *heads, "--data", str(data), "--run", "b", *words])
    other = checkpoint.load(Path("checkpoints/b")).weights
    assert other["heads.2.bias"].shape == (4,)
    name = "articles.sentence.weight_ih_l0"
    assert torch.allclose(other[name], before[name], atol=1e-6)
    start = checkpoint.load(source)
    reader = build_reader(RelationTaskOptions(max_words=2), [], start)
    assert reader.vocabulary.same_as(start.vocabulary)
    assert reader.max_words == 2  # the value that the new checkpoint stores


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [(), ("--recipe", "autoencoder", "--heatmaps", "0")])
def test_resuming_is_exact(data, monkeypatch, recipe):
    words = [*relation.PLAIN, "--data", str(data), "--epochs", "2", "--batch-size", "16", *recipe]
    train.main([*words, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(4, signal.SIGTERM, patch, RelationJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*words, "--run", "stopped"])
    train.main([*words, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/straight"), Path("checkpoints/stopped"))


def record_batches(monkeypatch):
    """Return a list to which (epoch, batch) is added for every batch that is trained on."""
    seen, batches = [], RelationJob.batches

    def recorded(self, epoch, first):
        for batch in batches(self, epoch, first):
            seen.append((epoch, batch))
            yield batch

    monkeypatch.setattr(RelationJob, "batches", recorded)
    return seen


@pytest.mark.slow
def test_resuming_is_exact_with_generated_texts(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heads = ["--heads", "cmi=0,0.25,0.5,0.75,1 sc=-1,0,1"]
    captions = ["--data", str(tiny.data(tmp_path_factory))]
    words = [*relation.PLAIN, *heads, *captions, "--epochs", "2"]
    train.main([*words, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch, RelationJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*words, "--run", "stopped"])
    train.main([*words, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/straight"), Path("checkpoints/stopped"))


@pytest.mark.slow
def test_a_label_that_no_text_has_is_noted(data, capsys):
    train_one(data, "three", "--heads", f"{relation.HEADS} status=0,1", "--epochs", "1")
    out = capsys.readouterr().out
    assert "note: no text of the train split has the label status, so its predictions" in out
    assert "the label sc" not in out


def test_texts_that_are_learned_as_true_are_no_contradictions(data):
    examples = read_captions(data).split("train")
    heads = [Head.parse(text) for text in relation.HEADS.split()]
    vocabulary = build_reader(RelationTaskOptions(text_min_count=1), examples).vocabulary

    def found(examples, **limits):
        split = read_split(examples, ArticleReader(vocabulary, **limits), heads)
        return contradictions(split, heads).tolist()

    assert len(found(examples)) == len(examples)
    alike = [replace(e, captions=(*e.captions[:-1], "It is not so.")) for e in examples]
    assert len(found(alike)) == len(examples)
    assert found(alike, max_words=2) == []  # all texts of the images begin with "it is"
    unlabelled = [
        replace(e, captions=e.captions[1:], labels=e.labels[1:]) for e in examples
    ]  # then all texts are learned as true
    assert found(unlabelled) == []
    longer = [
        replace(
            e,
            captions=(*e.captions, f"{e.captions[0]}\nIt is false."),
            labels=(*e.labels, e.labels[-1]),
        )
        for e in examples
    ]
    assert len(found(longer, max_sentences=1)) == len(examples)


@pytest.mark.slow
def test_epochs_have_different_texts_of_each_image(data, monkeypatch):
    seen = record_batches(monkeypatch)
    train_one(data, "few", "--texts-per-image", "2", "--epochs", "2", "--loss", "ordinal")
    by_epoch = [[batch for number, batch in seen if number == epoch] for epoch in (0, 1)]
    texts = []
    for found in by_epoch:
        assert sum(len(batch.articles) for batch in found) == 2 * relation.COUNTS["train"]
        assert all(np.bincount(batch.image_of_text).tolist() == [2] * 8 for batch in found)
        assert all(((batch.labels >= 0).sum(1) == 1).all() for batch in found)
        texts.append({i: labels.tolist() for b in found for i, labels in _labels_by_image(b)})
    assert texts[0].keys() == texts[1].keys()
    assert texts[0] != texts[1]


@pytest.mark.slow
def test_generated_texts_are_new_in_every_epoch_and_given_ones_are_not(
    data, tmp_path_factory, monkeypatch
):
    seen = record_batches(monkeypatch)
    captions = tiny.data(tmp_path_factory)
    for directory, run in ((captions, "generated"), (data, "given")):
        heads = ["--heads", "cmi=0,0.25,0.5,0.75,1 sc=-1,0,1"]
        train_one(directory, run, "--epochs", "2", *(heads if directory == captions else ()))
        epochs = [
            {image: texts for number, b in seen if number == epoch for image, texts in _texts(b)}
            for epoch in (0, 1)
        ]
        assert epochs[0].keys() == epochs[1].keys()
        changed = [epochs[0][image] != epochs[1][image] for image in epochs[0]]
        assert any(changed) == (directory == captions)
        seen.clear()


def _texts(batch):
    """Each image of a batch with its texts, as sets of sentences, and their labels."""
    rows = batch.articles.tokens.tolist()
    for number, image in enumerate(batch.ids):
        found = []
        for text in np.flatnonzero(batch.image_of_text == number):
            sentences = np.flatnonzero(batch.articles.text_of_sentence == text)
            tokens = {tuple(token for token in rows[s] if token) for s in sentences}
            found.append((tokens, batch.labels[text].tolist()))
        yield image, sorted(found, key=str)


@pytest.mark.slow
def test_an_autoencoder_gets_the_contradictions_of_its_images(data, monkeypatch):
    seen = record_batches(monkeypatch)
    train_one(data, "source", "--recipe", "autoencoder", "--heatmaps", "0", "--epochs", "1")
    examples = {example.id: example for example in read_captions(data).split("train")}
    vocabulary = checkpoint.load(Path("checkpoints/source")).vocabulary
    count = 0
    for _, batch in seen:
        rows = batch.contradictions.tokens.tolist()
        for row, owner in zip(rows, batch.image_of_contradiction.tolist(), strict=True):
            example = examples[batch.ids[owner]]
            words = " ".join(vocabulary.decode(token for token in row if token))
            right = [
                text.lower().rstrip(".")
                for text, labels in zip(example.captions, example.labels, strict=True)
                if labels.values.get("sc") == -1
            ]
            assert words in right
            count += 1
    assert count == relation.COUNTS["train"]


def _labels_by_image(batch):
    for number, image in enumerate(batch.ids):
        yield image, batch.labels[batch.image_of_text == number]


@pytest.mark.slow
def test_data_sets_of_captions_get_labels(tmp_path, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {"image_size": 32, "epochs": 1, "workers": 0, "device": "cpu", "curves": False}
    config = TrainConfig.from_options(
        system="relation", data=tiny.data(tmp_path_factory), text_min_count=1, **options
    )
    result = captioner.train(config)
    out = capsys.readouterr().out
    assert "labels of relations were generated from the captions (seed 0)\n" in out
    assert "  0: 32  1: 32; mean by source: contradiction -1.00, foreign caption 0.00" in out
    assert result.scores["accuracy"] > 0
    assert result.relation_classifier.relate(
        next((tiny.data(tmp_path_factory) / "val").iterdir()), "red"
    )
    with pytest.raises(InputError, match="a 'relation' run has no linker; use relation_classifi"):
        result.linker  # noqa: B018


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--heads", "sc=-1,0"], "train-0.png: the label sc must be one of -1, 0, got 1; correct"),
        (["--heads", "other=0,1"], "no text of the train split has a label for the heads other"),
        (["--alignment", "2"], "--alignment needs --recipe autoencoder"),
        (["--recipe", "autoencoder", "--loss", "ordinal"], "--loss has no effect with --recipe au"),
        (["--recipe", "autoencoder", "--texts-per-image", "2"], "--texts-per-image has no effect"),
        (["--samples", "2"], "--samples has no effect with --system relation"),
        (["--texts-per-image", "0"], "texts_per_image must be at least 1, got 0"),
        (["--start-from", "gone"], "--text-min-count cannot be combined with --start-from"),
        (["--recipe", "other"], "invalid choice: 'other'"),
    ],
)
def test_options_that_are_refused(data, words, message, capsys):
    with pytest.raises((InputError, SystemExit)) as caught:
        train_one(data, "x", *words)
    assert message in str(caught.value) + capsys.readouterr().err


def test_one_image_is_too_few(data):
    rows = (data / "relations.jsonl").read_text().splitlines()
    chosen = [row for row in rows if '"train-0.png"' in row or '"val-0.png"' in row]
    Path("one").mkdir()
    for name in ("train-0.png", "val-0.png"):
        (Path("one") / name).write_bytes((data / name).read_bytes())
    (Path("one") / "relations.jsonl").write_text("\n".join(chosen))
    with pytest.raises(InputError, match="training needs at least 2 images with labelled texts"):
        train_one("one", "x")
