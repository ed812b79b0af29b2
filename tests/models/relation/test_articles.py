"""Articles: splitting into sentences and tokens, limits, and the store of a split's texts."""

import pytest
import torch

from captioner.models.relation.articles import (
    ArticleReader,
    Articles,
    ArticleStore,
    pad_tokens,
)
from captioner.text.vocabulary import UNKNOWN, Vocabulary

VOCABULARY = Vocabulary(["a", "dog", "cat", "runs", "it"])
A, DOG, CAT, RUNS, IT = range(4, 9)


@pytest.fixture
def reader():
    return ArticleReader(VOCABULARY)


def articles_of(reader, texts):
    read = [reader.read(text) for text in texts]
    sentences = [sentence for text in read for sentence in text]
    return Articles(pad_tokens(sentences), torch.tensor([len(text) for text in read]))


def test_texts_become_sentences_of_tokens(reader):
    assert reader.read("A dog runs. It, a cat!") == [[A, DOG, RUNS], [IT, A, CAT]]
    assert reader.read("A zebra") == [[A, UNKNOWN]]
    assert reader.read("...") == [[UNKNOWN]]


def test_long_texts_are_cut():
    reader = ArticleReader(VOCABULARY, max_sentences=2, max_words=3)
    assert reader.read("a a a a a\ndog\ncat") == [[A, A, A], [DOG]]
    default = ArticleReader(VOCABULARY).read("\n".join(["dog " * 60] * 60))
    assert [len(default), *set(map(len, default))] == [50, 40]


def test_the_sentences_of_all_texts_are_rows(reader):
    articles = articles_of(reader, ["a dog\nit", "cat", "it runs\na\na dog runs"])
    assert articles.tokens.tolist() == [
        [A, DOG, 0],
        [IT, 0, 0],
        [CAT, 0, 0],
        [IT, RUNS, 0],
        [A, 0, 0],
        [A, DOG, RUNS],
    ]
    assert articles.counts.tolist() == [2, 1, 3]
    assert articles.text_of_sentence.tolist() == [0, 0, 1, 2, 2, 2]
    assert articles.position.tolist() == [0, 1, 0, 0, 1, 2]


def test_a_store_returns_the_same_articles(reader):
    texts = ["a dog\nit", "cat", "it\na dog\na dog", "...", "cat\ncat"]
    store = ArticleStore(reader, texts)
    for rows in ([0], [1], [3, 1], [2, 0, 4, 1]):
        found, expected = store.take(rows), articles_of(reader, [texts[row] for row in rows])
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.counts, expected.counts)
    assert len(store) == 5


def test_words_are_counted_as_often_as_they_occur(reader):
    store = ArticleStore(reader, ["a dog\nit", "cat", "it\na dog\na dog"])
    counts = store.word_counts([0, 2], len(VOCABULARY))
    assert counts.tolist() == [0, 0, 0, 0, 3, 3, 0, 0, 2]


def test_tensors_are_mapped_together():
    articles = Articles(torch.ones(2, 3, dtype=torch.long), torch.tensor([2]))
    doubled = articles.map(lambda tensor: 2 * tensor)
    assert (doubled.tokens.unique().item(), doubled.counts.item()) == (2, 4)
