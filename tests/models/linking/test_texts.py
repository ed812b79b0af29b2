"""Texts as models read them: tokens, vectors, unknown words, saving."""

import numpy as np
import pytest
import torch

from captioner.errors import InputError
from captioner.models.linking.texts import TextReader, Texts, concatenate, load_reader
from captioner.text.sentence_vectors import fit_counts
from captioner.text.vocabulary import Vocabulary

CAPTIONS = ["a dog runs", "a red cat runs", "a dog"]
WORDS = Vocabulary(["a", "dog", "runs"])  # tokens 4, 5, 6


def test_tokens_are_those_of_known_words_cut_and_padded():
    found = TextReader(WORDS, max_words=3).read(["A dog runs.", "the red", "runs a x dog a a"])
    assert found.vectors is None
    assert found.tokens.tolist() == [[4, 5, 6], [0, 0, 0], [6, 4, 5]]
    assert TextReader(WORDS).read(["zebra"]).tokens.tolist() == [[0]]
    assert TextReader(WORDS).read([]).tokens.shape == (0, 1)


@pytest.mark.parametrize(
    ("words", "vectors", "unknown"),
    [(True, False, ["red", "zebra"]), (False, True, ["zebra"]), (True, True, ["zebra"])],
)
def test_a_word_is_unknown_if_it_contributes_nothing(words, vectors, unknown):
    reader = TextReader(WORDS if words else None, fit_counts(CAPTIONS, 1) if vectors else None)
    assert reader.unknown_words("A red zebra runs") == unknown
    assert reader.knows("red dog")
    assert not reader.knows("zebra")
    assert not reader.knows("")


@pytest.mark.parametrize(("words", "vectors"), [(True, False), (False, True), (True, True)])
def test_a_saved_reader_reads_the_same(tmp_path, words, vectors):
    reader = TextReader(WORDS if words else None, fit_counts(CAPTIONS, 1) if vectors else None, 2)
    reader.save(tmp_path)
    loaded = load_reader(tmp_path)
    before, after = reader.read(CAPTIONS), loaded.read(CAPTIONS)
    if words:
        assert before.tokens.equal(after.tokens)
    if vectors:
        np.testing.assert_array_equal(before.vectors, after.vectors)
    assert loaded.vector_size == reader.vector_size == 5 * vectors


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"reader\.json cannot be read: .*No such file"):
        load_reader(tmp_path)
    TextReader(WORDS).save(tmp_path)
    (tmp_path / "vocabulary.json").unlink()
    with pytest.raises(InputError, match=r"vocabulary\.json"):
        load_reader(tmp_path)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"words": true}', '{"words": 0, "vectors": 0, "max_words": 5}']
)
def test_a_damaged_description_is_refused(tmp_path, content):
    (tmp_path / "reader.json").write_text(content)
    with pytest.raises(InputError, match=r"reader\.json (cannot be read|does not describe)"):
        load_reader(tmp_path)


def test_blocks_are_concatenated_and_rows_taken():
    blocks = [
        Texts(torch.tensor([[4, 0], [5, 6]]), torch.eye(2)),
        Texts(torch.tensor([[4, 5, 6]]), torch.ones(1, 2)),
    ]
    joined = concatenate(blocks)
    assert joined.tokens.tolist() == [[4, 0, 0], [5, 6, 0], [4, 5, 6]]
    assert joined.vectors.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert len(joined) == 3
    taken = joined.take(torch.tensor([1, 0]))
    assert taken.tokens.tolist() == [[5, 6], [4, 0]]
    assert taken.vectors.tolist() == [[0, 1], [1, 0]]
