"""Sentence encoders built for a data set, and the vectors of its captions."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from captioner.checkpoints import checkpoint
from captioner.data.dataset import CaptionData, Example
from captioner.data.images import Transform
from captioner.errors import InputError
from captioner.models.captioning.build import build_model
from captioner.models.captioning.options import ModelOptions
from captioner.models.captioning.sentence_state import sentence_state
from captioner.models.linking.text_model import load_sentence_encoder, save_sentence_encoder
from captioner.options import to_dict
from captioner.tasks.linking import text_vectors as module
from captioner.tasks.linking.text_vectors import (
    build_sentence_encoder,
    caption_vectors,
    check_sentence_encoder,
    check_word_vectors,
)
from captioner.text.documents import fit_doc2vec, fit_lda
from captioner.text.options import TextVectorOptions
from captioner.text.sentence_vectors import (
    fit_counts,
    fit_lsa,
    fit_tfidf,
    fit_word2vec,
    read_word_vectors,
)
from captioner.text.trained_words import fit_fasttext, fit_ppmi_svd
from captioner.text.transformer import read_transformer
from captioner.vision.encoders import build_encoder
from tests.support.sentence_encoder import write_sentence_encoder

TRAIN = ["a dog runs", "a red dog", "the cat on the red sofa", "a cat and a dog"]
# In reading order; the splits alternate, and an image has no caption.
EXAMPLES = [
    ("train", TRAIN[:2]),
    ("val", ["a zebra runs", "a zebra eats"]),
    ("train", []),
    ("train", TRAIN[2:]),
    ("val", ["the red zebra"]),
]
VAL = ["a zebra runs", "a zebra eats", "the red zebra"]
PROBES = ["A dog and a cat", "zebra", "the red sofa"]


@pytest.fixture
def data():
    examples = tuple(
        Example(number, Path(f"{number}.png"), tuple(captions), split)
        for number, (split, captions) in enumerate(EXAMPLES)
    )
    return CaptionData("tiny", "jsonl", Path("tiny"), examples)


def options(*sources, **others):
    defaults = {"text_min_count": 1, "text_dimensions": 3}
    return TextVectorOptions(text_vectors=tuple(map(str, sources)), **defaults | others)


def write_vectors(path):
    path.write_text("a 1 2\ndog 0 1\nred 3 -1\nzebra 1 1\n")
    return path


def write_checkpoint(path, vocabulary):
    encoder = build_encoder("small_cnn", fine_tune_from=0)
    model = build_model(encoder, len(vocabulary), ModelOptions(embedding_size=5, hidden_size=6))
    config = {
        "task": "captioning",
        "encoder": {"encoder": "small_cnn", "fine_tune_encoder": 0},
        "model": to_dict(model.options),
        "transform": asdict(Transform(64)),
    }

    def save(directory):
        vocabulary.save(directory / checkpoint.VOCABULARY)

    checkpoint.save(path, config, save, model.state_dict(), None)
    return model


@pytest.mark.parametrize(
    ("source", "fit"),
    [
        ("counts", lambda: fit_counts(TRAIN, 2)),
        ("tf-idf", lambda: fit_tfidf(TRAIN, 2)),
        ("lsa", lambda: fit_lsa(TRAIN, 2, 3)),
        ("word2vec", lambda: fit_word2vec(TRAIN, 2, 3, weighted=False)),
        ("word2vec-tf-idf", lambda: fit_word2vec(TRAIN, 2, 3, weighted=True)),
        ("fasttext", lambda: fit_fasttext(TRAIN, 2, 3, weighted=False)),
        ("fasttext-tf-idf", lambda: fit_fasttext(TRAIN, 2, 3, weighted=True)),
        ("ppmi-svd", lambda: fit_ppmi_svd(TRAIN, 2, 3, weighted=False)),
        ("ppmi-svd-tf-idf", lambda: fit_ppmi_svd(TRAIN, 2, 3, weighted=True)),
        ("doc2vec", lambda: fit_doc2vec(TRAIN, 2, 3)),
        ("lda", lambda: fit_lda(TRAIN, 2, 3)),
    ],
)
def test_named_encoders_are_fitted_on_the_captions_of_the_train_split(source, fit, data):
    chosen = options(source, text_min_count=2)
    check_sentence_encoder(chosen)
    encoder = build_sentence_encoder(chosen, data)
    np.testing.assert_array_equal(encoder.encode(PROBES), fit().encode(PROBES))
    assert encoder.unknown_words("a zebra") == ["zebra"]


@pytest.mark.parametrize("suffix", ["", "-tf-idf"])
def test_word_vectors_are_those_of_training_words(tmp_path, data, suffix):
    path = write_vectors(tmp_path / "glove.txt")
    source = f"{path}{suffix}"
    check_sentence_encoder(options(source))
    encoder = build_sentence_encoder(options(source), data)
    expected = read_word_vectors(path, TRAIN, 1, weighted=bool(suffix))
    np.testing.assert_array_equal(encoder.encode(PROBES), expected.encode(PROBES))
    assert encoder.unknown_words("a zebra") == ["zebra"]


@pytest.mark.parametrize("place", ["", "best"])
def test_a_captioner_gives_the_states_of_its_lstm(tmp_path, data, vocabulary, place):
    model = write_checkpoint(tmp_path / "run" / place, vocabulary)
    check_sentence_encoder(options(tmp_path / "run"))
    encoder = build_sentence_encoder(options(tmp_path / "run"), data)
    expected = sentence_state(model, vocabulary).encode(PROBES)
    np.testing.assert_array_equal(encoder.encode(PROBES), expected)


def test_several_sources_are_concatenated_in_order(tmp_path, data):
    directory = tmp_path / "transformer"
    directory.mkdir()
    write_sentence_encoder(directory)
    chosen = options("counts", directory, "lsa")
    check_sentence_encoder(chosen)
    encoder = build_sentence_encoder(chosen, data)
    parts = fit_counts(TRAIN, 1), read_transformer(directory), fit_lsa(TRAIN, 1, 3)
    expected = np.concatenate([part.encode(PROBES) for part in parts], axis=1)
    np.testing.assert_array_equal(encoder.encode(PROBES), expected)


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    ("split", "captions"), [("train", TRAIN), ("val", VAL), ("dev", VAL), ("test", [])]
)
def test_vectors_of_captions_come_in_blocks_and_in_order(data, monkeypatch, size, split, captions):
    monkeypatch.setattr(module, "BLOCK", size)
    encoder = build_sentence_encoder(options("tf-idf"), data)
    blocks = list(caption_vectors(encoder, data, split))
    assert [len(block) for block in blocks] == [
        min(size, len(captions) - first) for first in range(0, len(captions), size)
    ]
    if blocks:
        np.testing.assert_array_equal(np.concatenate(blocks), encoder.encode(captions))


@pytest.mark.parametrize("saved", [False, True])
def test_given_rows_are_one_per_caption_in_reading_order(tmp_path, data, monkeypatch, saved):
    monkeypatch.setattr(module, "BLOCK", 2)
    captions = [caption for example in data.examples for caption in example.captions]
    rows = np.random.default_rng(0).normal(size=(7, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.save(tmp_path / "v.npy", rows)
    chosen = options(tmp_path / "v.npy", "counts")
    check_sentence_encoder(chosen)
    encoder = build_sentence_encoder(chosen, data)
    if saved:
        save_sentence_encoder(encoder, tmp_path)
        encoder = load_sentence_encoder(tmp_path)
    counts = fit_counts(TRAIN, 1)
    for split, texts in (("train", TRAIN), ("val", VAL)):
        own = [row for row, caption in zip(rows, captions, strict=True) if caption in texts]
        found = np.concatenate(list(caption_vectors(encoder, data, split)))
        np.testing.assert_allclose(found[:, :4], own, rtol=1e-6)
        np.testing.assert_array_equal(found[:, 4:], counts.encode(texts))
    with pytest.raises(InputError, match=r"^new text cannot be encoded"):
        encoder.encode(TRAIN)
    others = replace(data, examples=data.examples[::-1])
    with pytest.raises(
        InputError, match=r"v\.npy cannot be used with .*: its vectors belong to other captions"
    ):
        next(caption_vectors(encoder, others, "train"))


def test_rows_must_cover_all_splits(tmp_path, data):
    np.save(tmp_path / "v.npy", np.ones((4, 2)))
    with pytest.raises(InputError, match="have 4 rows, but there are 7 captions; write one row"):
        build_sentence_encoder(options(tmp_path / "v.npy"), data)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tfidf", "^unknown sentence vectors 'tfidf'; did you mean 'tf-idf'\\?$"),
        ("bert", "^unknown sentence vectors 'bert'; choose counts, tf-idf, lsa, .* or a path$"),
        (
            "{tmp}/gone.txt",
            "^word vectors .*gone.txt do not exist; check the path$",
        ),
        (
            "{tmp}/gone.bin.gz",
            "^word vectors .*gone.bin.gz do not exist; check the path$",
        ),
        ("{tmp}/gone.npy", "gone.npy cannot be read: No such file or directory; check the path$"),
        ("{tmp}/gone", "gone do not exist; choose a .txt, .vec"),
        ("{tmp}/flat.npy", r"must be a matrix of float16, float32 or float64, got float64 \(3,\)$"),
        ("{tmp}/text.json", "text.json are not of a known kind; choose a .txt"),
        (
            "{tmp}",
            "does not contain a checkpoint: there is no manifest.json in it, in best/ or in last/",
        ),
        ("{tmp}/half", "half is not a sentence encoder: config.json is missing"),
    ],
)
def test_unsuitable_sources_are_refused_early(tmp_path, source, message):
    np.save(tmp_path / "flat.npy", np.ones(3))
    (tmp_path / "text.json").write_text("{}")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=message):
        check_sentence_encoder(options("lsa", source.format(tmp=tmp_path)))


@pytest.mark.parametrize("source", ["word2vec", "word2vec-tf-idf"])
def test_a_missing_extra_is_reported_early(monkeypatch, source):
    monkeypatch.setitem(sys.modules, "gensim", None)
    message = rf"^{source} needs gensim; run pip install 'captioner\[link\]', or choose lsa or"
    with pytest.raises(InputError, match=message):
        check_sentence_encoder(options(source))
    check_sentence_encoder(options("tf-idf"))


def test_a_directory_is_not_a_file_of_word_vectors(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match=r"a\.txt are not a file; check the path"):
        check_word_vectors(str(tmp_path / "a.txt"), ())
