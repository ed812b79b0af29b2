"""What captions are like: by hand, and against nltk."""

import math

import pytest
from hypothesis import given, settings
from nltk.translate.bleu_score import modified_precision

from captioner.errors import InputError
from captioner.metrics.caption_statistics import FUNCTION_WORDS, Statistics, statistics
from captioner.metrics.captions import score
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
        "2.80 words a caption, 8 different words, 20.0 % end in a function word, 80.0 % distinct, "
        "brevity penalty 0.807"
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
    assert score(*both)["BLEU-1"] == pytest.approx(100 * precision * penalty, abs=1e-5)


def test_words_that_end_a_sentence_badly_and_well() -> None:
    badly = "a the with in on and to of is his".split()
    well = "outside inside up down off by around behind together her it that can each grass".split()
    assert set(badly) <= set(FUNCTION_WORDS) and not set(well) & set(FUNCTION_WORDS)
    assert len(set(FUNCTION_WORDS)) == len(FUNCTION_WORDS)
    for word in FUNCTION_WORDS:  # as captions are taken apart
        assert statistics({1: f"dogs {word}"}, {1: ["x"]}).function_endings == 100


def test_statistics_of_what_is_no_corpus() -> None:
    with pytest.raises(InputError, match="no captions to score"):
        statistics({}, {})
    with pytest.raises(InputError, match="have no references: 1"):
        statistics({1: "a dog"}, {})


def test_captions_of_no_words() -> None:
    assert statistics({1: ""}, {1: ["a dog"]}) == Statistics(0, 0, 0, 100, 0)


def test_novel_is_what_no_training_caption_equals() -> None:
    captions = {1: "a dog's ball", 2: "a red dog", 3: "a dogs ball", 4: "two dogs"}
    references = {key: ["x"] for key in captions}
    training = (
        text for text in ["A dog\u2019s ball .", "a  Red, dog", "a red cat", "two dogs run"]
    )
    found = statistics(captions, references, training)
    assert found.novelty == 100 * 1 / 4  # two dogs; an apostrophe makes no other caption
    assert str(found).endswith(", 25.0 % novel") and found.numbers["novelty"] == 25
    assert statistics(captions, references, []).novelty == 100
    unknown = statistics(captions, references)
    assert unknown.novelty is None and "novel" not in str(unknown)
    assert "novelty" not in unknown.numbers and len(unknown.numbers) == 5
