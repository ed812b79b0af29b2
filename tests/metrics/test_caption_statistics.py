"""Statistics of captions, computed by hand and against nltk."""

import math

import pytest
from hypothesis import given, settings
from nltk.translate.bleu_score import modified_precision

from captioner.errors import InputError
from captioner.metrics.caption_statistics import DANGLING_ENDINGS, Statistics, statistics
from captioner.metrics.captions import corpus_scores
from tests.support.corpora import Corpus, as_sentences, corpora


def test_statistics_by_hand() -> None:
    captions = {1: "A dog runs.", 2: "a dog runs", 3: "a man in a", 4: "the man looks up", 5: "!"}
    references = {
        1: ["a dog runs off", "dog"],
        2: ["x"],
        3: ["a b c"],
        4: ["a " * 9],
        5: ["!", "a"],
    }
    assert statistics(captions, references) == Statistics(
        mean_length=(3 + 3 + 4 + 4 + 0) / 5,
        vocabulary_used=8,  # a dog runs man in the looks up
        function_endings=100 * 1 / 5,
        distinct=100 * 4 / 5,
        brevity_penalty=pytest.approx(math.exp(1 - (4 + 1 + 3 + 9 + 0) / 14)),
    )
    assert str(statistics(captions, references)) == (
        "2.80 words per caption, 8 different words, 20.0 % end with a function word, "
        "80.0 % distinct, brevity penalty 0.807"
    )


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=1))
def test_bleu_is_the_brevity_penalty_times_the_precision(corpus: Corpus) -> None:
    hypotheses, references = corpus
    both = as_sentences(corpus)
    precisions = [
        modified_precision(r, h, n=1) for h, r in zip(hypotheses, references, strict=True)
    ]
    precision = sum(p.numerator for p in precisions) / sum(p.denominator for p in precisions)
    penalty = statistics(*both).brevity_penalty
    assert 0 <= penalty <= 1
    assert corpus_scores(*both)["BLEU-1"] == pytest.approx(100 * precision * penalty, abs=1e-5)


def test_dangling_endings_leave_out_words_that_may_end_a_sentence() -> None:
    dangling = "a the with in on and to of is his".split()
    fine = "outside inside up down off by around behind together her it that can each grass".split()
    assert set(dangling) <= set(DANGLING_ENDINGS)
    assert not set(fine) & set(DANGLING_ENDINGS)
    assert len(set(DANGLING_ENDINGS)) == len(DANGLING_ENDINGS)
    for word in DANGLING_ENDINGS:  # after tokenization
        assert statistics({1: f"dogs {word}"}, {1: ["x"]}).function_endings == 100


def test_statistics_need_captions_and_references() -> None:
    with pytest.raises(InputError, match="at least one caption is required"):
        statistics({}, {})
    with pytest.raises(InputError, match="no references for 1 of the images to score: 1"):
        statistics({1: "a dog"}, {})


def test_a_caption_without_words() -> None:
    assert statistics({1: ""}, {1: ["a dog"]}) == Statistics(0, 0, 0, 100, 0)


def test_a_caption_is_novel_if_it_equals_no_training_caption() -> None:
    captions = {1: "a dog's ball", 2: "a red dog", 3: "a dogs ball", 4: "two dogs"}
    references = {key: ["x"] for key in captions}
    training = (
        text for text in ["A dog\u2019s ball .", "a  Red, dog", "a red cat", "two dogs run"]
    )
    found = statistics(captions, references, training)
    assert found.novelty == 100 * 1 / 4  # only "two dogs": apostrophes are ignored
    assert str(found).endswith(", 25.0 % novel")
    assert found.numbers["novelty"] == 25
    assert statistics(captions, references, []).novelty == 100
    without = statistics(captions, references)
    assert without.novelty is None
    assert "novel" not in str(without)
    assert "novelty" not in without.numbers
    assert len(without.numbers) == 5
