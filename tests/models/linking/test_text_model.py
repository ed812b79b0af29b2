"""Saved sentence encoders: exactly equal vectors after reading, and damage that is refused."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from captioner.errors import InputError
from captioner.models.captioning.sentence_state import SentenceState, sentence_state
from captioner.models.linking.text_model import (
    ARRAYS,
    TEXT,
    known_words,
    load_sentence_encoder,
    save_sentence_encoder,
    suggest_words,
)
from captioner.text.documents import fit_doc2vec, fit_lda
from captioner.text.given_rows import GivenRows
from captioner.text.sentence_vectors import ConcatenatedEncoder, WordSum, fit_lsa, fit_tfidf
from captioner.text.transformer import read_transformer
from tests.support.sentence_encoder import write_sentence_encoder

SENTENCES = ["A dog runs.", "", "the red cat sits on the green grass", "a zebra", "Dog dog café"]
CAPTIONS = [*SENTENCES, "a blue ball on a red ball", "the cat runs"]

FITTED = {
    "tf-idf": lambda: fit_tfidf(CAPTIONS, 1),
    "lsa": lambda: fit_lsa(CAPTIONS, 1, 5),
    "lda": lambda: fit_lda(CAPTIONS * 9, 1, 3),
    "doc2vec": lambda: fit_doc2vec(CAPTIONS * 9, 1, 4),
}


@pytest.fixture
def encoder(request, tmp_path, tiny_model, vocabulary):
    """One encoder of each kind."""
    turned = np.random.default_rng(0).normal(size=(5, 3)).T.astype(np.float32)  # columns in order

    def build(kind):
        match kind:
            case fitted if fitted in FITTED:
                return FITTED[fitted]()
            case "transposed":
                return WordSum(("dog", "red", "café"), np.array([1.0, 2, 3]), turned)
            case "transformer":
                directory = tmp_path / "transformer"
                directory.mkdir()
                return read_transformer(write_sentence_encoder(directory))
            case "show-and-tell" | "attention":
                model = tiny_model(kind == "attention")
                if kind == "show-and-tell":
                    model.standardize.mean += 0.7
                return sentence_state(model, vocabulary)
            case "hard-attention":
                return sentence_state(tiny_model(True, hard_attention=True), vocabulary)
        return ConcatenatedEncoder(
            (
                build("lsa"),
                build("attention"),
                ConcatenatedEncoder((build("transformer"), build("tf-idf"), build("lsa"))),
            )
        )

    return build(request.param)


KINDS = [
    "tf-idf",
    "lsa",
    "lda",
    "doc2vec",
    "transposed",
    "transformer",
    "show-and-tell",
    "attention",
]


@pytest.mark.parametrize("encoder", [*KINDS, "hard-attention", "several"], indirect=True)
def test_vectors_and_unknown_words_are_equal_after_reading(encoder, tmp_path):
    save_sentence_encoder(encoder, tmp_path)
    again = load_sentence_encoder(tmp_path)
    np.testing.assert_array_equal(again.encode(SENTENCES), encoder.encode(SENTENCES))
    assert again.dimensions == encoder.dimensions
    for sentence in SENTENCES:
        assert again.unknown_words(sentence) == encoder.unknown_words(sentence)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_given_rows_are_equal_after_reading(tmp_path, dtype):
    rows = np.asfortranarray(np.random.default_rng(0).normal(size=(9, 4)).astype(dtype))
    save_sentence_encoder(GivenRows(rows, "fingerprint", "v.npy"), tmp_path)
    again = load_sentence_encoder(tmp_path)
    np.testing.assert_array_equal(again.rows, rows)
    assert (again.fingerprint, again.source) == ("fingerprint", "v.npy")
    assert again.rows.dtype.itemsize == rows.dtype.itemsize


@pytest.mark.parametrize("encoder", ["attention"], indirect=True)
def test_a_captioner_is_saved_without_its_image_encoder(encoder, tmp_path):
    save_sentence_encoder(encoder, tmp_path)
    assert isinstance(load_sentence_encoder(tmp_path), SentenceState)
    assert not any("encoder" in name for name in load_file(tmp_path / ARRAYS))


def set_field(name, value):
    def change(content):
        content["parts"][0][name] = value

    return change


def set_top(name, value):
    return lambda content: content.update({name: value})


@pytest.mark.parametrize(
    ("encoder", "change", "message"),
    [
        (
            "lsa",
            set_top("format", 2),
            "has format 2, but this version of captioner reads format 1; ",
        ),
        ("lsa", set_top("parts", []), "it has no list of parts; copy or"),
        ("lsa", set_top("parts", ["words"]), "it has no list of parts; copy or"),
        ("lsa", set_field("kind", "glove"), "kind must be one of words, .*, got 'glove'; copy or"),
        ("lsa", set_field("kind", None), "kind must be str, got NoneType; copy or"),
        ("lsa", lambda c: c["parts"][0].pop("words"), "is damaged: part 0 has no 'words'; copy"),
        (
            "lsa",
            lambda c: c["parts"][0]["words"].pop(),
            r"expected weights \(13,\) and optional vectors, got",
        ),
        (
            "lsa",
            lambda c: c["parts"][0]["words"].append("the"),
            "words must be unique; number of duplicates: 1; copy or",
        ),
        ("lsa", set_field("words", [1, 2]), "words must be one or more strings without"),
        ("lsa", set_field("words", ["a b"]), "words must be one or more strings without white"),
        ("transformer", set_field("layers", 3), "no 'encoder.layer.2"),
        ("transformer", set_field("layers", True), "layers must be int, got bool; copy or"),
        ("transformer", set_field("heads", -1), "heads must be above 0, got -1; copy or"),
        ("transformer", set_field("heads", 3), "part 0 cannot be used: "),
        (
            "transformer",
            set_field("epsilon", float("nan")),
            "epsilon must be above 0, got nan; copy or",
        ),
        ("transformer", set_field("tokenizer", "{}"), "part 0 cannot be used: "),
        ("attention", set_field("channels", 11), "size mismatch"),
        ("attention", set_field("options", {"attention": "yes"}), "attention must be "),
        ("attention", set_field("options", {"depth": 3}), "unknown option 'depth'"),
        ("attention", lambda c: c["parts"][0]["words"].append("new"), "size mismatch"),
        ("attention", set_field("words", ["a", "a"]), "'a' is repeated"),
    ],
    indirect=["encoder"],
)
def test_a_changed_description_is_refused(encoder, tmp_path, change, message):
    save_sentence_encoder(encoder, tmp_path)
    content = json.loads((tmp_path / TEXT).read_text(encoding="utf-8"))
    change(content)
    (tmp_path / TEXT).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=rf"text\.json.*{message}"):
        load_sentence_encoder(tmp_path)


def nan(array):
    array.flat[-1] = np.nan
    return array


@pytest.mark.parametrize(
    ("encoder", "name", "change", "message"),
    [
        ("lsa", "0.vectors", nan, "0.vectors must contain only finite floating-point numbers;"),
        ("lsa", "0.vectors", lambda a: a.astype(int), "must contain only finite floating-point"),
        (
            "lsa",
            "0.vectors",
            lambda a: a.astype(np.float64),
            "must be float32, got float64; copy or",
        ),
        ("lsa", "0.vectors", lambda a: a[:, :0], r"vectors must have shape \(14, 1 or more\), got"),
        ("lsa", "0.vectors", lambda a: a[1:], r"vectors must have shape .* got \(13, 5\); copy or"),
        ("lsa", "0.vectors", lambda a: a[0], r"vectors must have shape \(14, 1 or more\), got"),
        ("lsa", "0.weights", lambda a: a[:, None], r"expected weights .* \(14, 1\); copy or"),
        ("lsa", "0.other", lambda _: np.ones(2, np.float32), "expected weights"),
        ("lsa", "1.weights", lambda _: np.ones(2, np.float32), "does not belong to any part"),
        ("lsa", "weights", lambda _: np.ones(2, np.float32), "does not belong to any part"),
        ("attention", "0.key.bias", lambda a: a[1:], "size mismatch"),
        ("attention", "0.key.more", lambda _: np.ones(2, np.float32), "Unexpected key"),
        (
            "transformer",
            "0.encoder.layer.0.output.dense.weight",
            lambda a: a[:, 1:],
            "part 0 cannot be used: ",
        ),
    ],
    indirect=["encoder"],
)
def test_changed_arrays_are_refused(encoder, tmp_path, name, change, message):
    save_sentence_encoder(encoder, tmp_path)
    arrays = load_file(tmp_path / ARRAYS)
    arrays[name] = np.ascontiguousarray(change(arrays.get(name)))
    save_file(arrays, tmp_path / ARRAYS)
    with pytest.raises(InputError, match=rf"^{tmp_path}/text\..*{message}"):
        load_sentence_encoder(tmp_path)


@pytest.mark.parametrize("encoder", ["lsa"], indirect=True)
@pytest.mark.parametrize("name", [TEXT, ARRAYS])
@pytest.mark.parametrize("content", [None, b"", b"[" * 10_000, b"\xff\xfe", b"[1]"])
def test_missing_and_damaged_files_are_named(encoder, tmp_path, name, content):
    save_sentence_encoder(encoder, tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} (cannot be read: |.*it has no format; copy or)"):
        load_sentence_encoder(tmp_path)


@pytest.mark.parametrize("encoder", ["transformer"], indirect=True)
def test_reading_a_transformer_needs_tokenizers(encoder, tmp_path, monkeypatch):
    save_sentence_encoder(encoder, tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"text\.json needs tokenizers; run pip install 'captioner\[text\]'$"
    with pytest.raises(InputError, match=message):
        load_sentence_encoder(tmp_path)


# ---- words that are suggested for unknown ones --------------------------------------------------


def test_similar_words_are_suggested_the_most_frequent_of_equally_similar_ones_first():
    words = WordSum(("beach", "god", "dog", "bench", "dgx"), np.ones(5))
    assert suggest_words(known_words(words), ["dgo"]) == "'dgo' (similar: god, dog, dgx)"
    assert suggest_words(known_words(words), ["beech", "beech", "qqq"]) == (
        "'beech' (similar: beach, bench), 'qqq' (no similar word)"
    )
    assert suggest_words(known_words(words), ["dog-beach"]).endswith(
        "; to subtract, write dog - beach)"
    )


@pytest.mark.parametrize("encoder", ["several", "show-and-tell"], indirect=True)
def test_words_of_all_parts_are_suggested(encoder):
    assert suggest_words(known_words(encoder), ["dogg"]).startswith("'dogg' (similar: dog")


@pytest.mark.parametrize("encoder", ["transformer"], indirect=True)
def test_pieces_of_words_are_not_suggested(encoder):
    assert suggest_words(known_words(encoder), ["dogg"]) == "'dogg' (no similar word)"


@pytest.mark.parametrize(
    ("encoder", "change", "message"),
    [
        (
            "lda",
            {"topics": np.ones((2, 5), np.float32)},
            "the arrays of topics have the wrong shapes: 0?",
        ),
        ("lda", {"prior": np.zeros(3, np.float32)}, "topics must not be negative, and their prior"),
        ("doc2vec", {"noise": np.ones((2, 3), np.float32)}, "paragraphs have the wrong shapes"),
        ("doc2vec", {"mean": np.ones(0, np.float32)}, "paragraphs have the wrong shapes"),
        ("doc2vec", {"noise": np.ones((), np.float32)}, "paragraphs have the wrong shapes"),
    ],
    indirect=["encoder"],
)
def test_damaged_documents_are_refused(encoder, change, message, tmp_path):
    save_sentence_encoder(encoder, tmp_path)
    arrays = load_file(tmp_path / ARRAYS)
    save_file(arrays | {f"0.{k}": v for k, v in change.items()}, tmp_path / ARRAYS)
    with pytest.raises(InputError, match=message):
        load_sentence_encoder(tmp_path)
