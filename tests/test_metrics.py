"""BLEU against nltk called directly, against pycocoevalcap, and by hand."""

import math
import warnings
from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu

from captioner import __version__
from captioner.errors import InputError
from captioner.metrics import bleu, score, signature

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def corpora(shortest: int) -> st.SearchStrategy[Corpus]:
    """Captions of at least `shortest` words, with references of any length, ties included."""
    words = st.sampled_from(["a", "dog", "runs", "n't"])
    caption = st.lists(words, min_size=shortest, max_size=9)
    references = st.lists(st.lists(words, max_size=9), min_size=1, max_size=5)
    pairs = st.lists(st.tuples(caption, references), min_size=1, max_size=6)
    return pairs.map(lambda several: ([h for h, _ in several], [r for _, r in several]))


@settings(deadline=None, max_examples=100, database=None)
@given(corpora(shortest=0))
def test_same_as_nltk(corpus: Corpus) -> None:
    hypotheses, references = corpus
    ours = bleu(hypotheses, references)
    assert list(ours) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]
    for order in range(1, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = corpus_bleu(references, hypotheses, weights=(1 / order,) * order)
        assert ours[f"BLEU-{order}"] == pytest.approx(100 * theirs, abs=1e-9)


@settings(deadline=None, max_examples=100, database=None)
@given(corpora(shortest=4))
def test_same_as_pycocoevalcap(corpus: Corpus) -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    hypotheses, references = corpus
    theirs, _ = Bleu(4).compute_score(
        {i: [" ".join(words) for words in several] for i, several in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
        verbose=0,
    )
    for ours, their in zip(bleu(hypotheses, references).values(), theirs, strict=True):
        if ours:
            assert ours == pytest.approx(100 * their, abs=1e-6)
        else:  # theirs puts 1e-15 for a count of zero
            assert their < 1e-15**0.25


def test_by_hand() -> None:
    hypotheses = ["the the cat sat".split(), "a dog runs fast".split()]
    references = [
        ["the cat sat down".split()],
        ["a dog runs".split(), "a dog runs away now".split()],
    ]
    # Words: the cat sat, a dog runs, of 8; pairs: the cat, cat sat, a dog, dog runs, of 6;
    # threes: the cat sat, a dog runs, of 4; fours: none. References are 4 and (3 or 5, so) 3 long.
    scores = bleu(hypotheses, references)
    assert scores["BLEU-1"] == pytest.approx(100 * 6 / 8)
    assert scores["BLEU-2"] == pytest.approx(100 * (6 / 8 * 4 / 6) ** (1 / 2))
    assert scores["BLEU-3"] == pytest.approx(100 * (6 / 8 * 4 / 6 * 2 / 4) ** (1 / 3))
    assert scores["BLEU-4"] == 0.0


def test_brevity_is_judged_by_the_closest_reference() -> None:
    caption = ["a b c d".split()]
    longer = "a b c d e".split()
    penalty = 100 * math.exp(1 - 5 / 4)
    assert bleu(caption, [[longer, longer * 2]])["BLEU-4"] == pytest.approx(penalty)
    assert bleu(caption, [[longer, longer * 2, ["x"] * 3]])["BLEU-4"] == pytest.approx(100)


def test_perfect_and_hopeless_captions() -> None:
    words = "a dog runs over the grass".split()
    assert bleu([words], [[["x"], words]]) == pytest.approx(
        dict.fromkeys(bleu([words], [[words]]), 100)
    )
    assert set(bleu([words], [[["cat"]]]).values()) == {0.0}
    assert set(bleu([[]], [[words]]).values()) == {0.0}
    assert set(bleu([words], [[[]]]).values()) == {0.0}


def test_an_empty_caption_costs_only_itself() -> None:
    words = "a dog runs over the grass".split()
    scores = bleu([words, []], [[words], [["x"]]])
    # One miss more than coco-caption counts, in every order.
    assert scores["BLEU-1"] == pytest.approx(100 * math.exp(1 - 7 / 6) * 6 / 7)
    assert 0 < scores["BLEU-4"] < scores["BLEU-1"]


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "no captions to score"),
        ([["a"]], [], "got 1 captions and references of 0 pictures"),
        ([["a"], ["b"]], [[["a"]], []], "picture 1 has no references"),
        (["a dog"], [[["a"]]], "picture 0 has a string"),
        ([["a"]], [["a dog"]], "picture 0 has a string"),
        ([["a"]], ["a dog"], "picture 0 has a string"),
    ],
)
def test_bleu_refuses_what_is_no_corpus(hypotheses: list, references: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        bleu(hypotheses, references)


def test_score_takes_sentences_apart_first() -> None:
    captions = {7: "A dog doesn't run!", "x": "Two men\nride bikes."}
    references = {
        "x": ["two men ride", "two men ride bikes"],
        7: ("a dog does n't run .", "The dog isn’t running"),
    }
    assert score(captions, references) == pytest.approx(
        dict.fromkeys(score(captions, references), 100)
    )
    assert score({1: "a dog"}, {1: ["a cat", "dog"]})["BLEU-1"] == pytest.approx(100)


def test_a_line_break_in_one_caption_leaves_the_others_alone() -> None:
    references = {i: ["a brown dog runs fast"] for i in range(3)}
    plain = {0: "a brown dog", 1: "a cat", 2: "a brown dog runs fast"}
    broken = {0: "a\u2028brown\r\ndog", 1: "a\x85cat\x0b", 2: "a brown\0dog runs fast\n"}
    assert score(broken, references) == score(plain, references)


def test_score_names_the_pictures_that_are_missing() -> None:
    ids = {i: ["a"] for i in range(12)}
    with pytest.raises(InputError, match=r"^12 .* have no caption: 0, 1, 2, .*8, 9, \.\.\.$"):
        score({}, ids)
    with pytest.raises(InputError, match=r"^1 of the pictures to score have no references: 'b'$"):
        score({"a": "a dog", "b": "a dog"}, {"a": ["a dog"]})
    text_id: dict[int | str, str] = {"1": "a dog"}
    number_id: dict[int | str, list[str]] = {1: ["a dog"]}
    with pytest.raises(InputError, match=r"^1 of the pictures to score have no caption: 1$"):
        score(text_id, number_id)


def test_score_refuses_one_string_for_references() -> None:
    with pytest.raises(InputError, match="references of picture 'a' must be a list, got a string"):
        score({"a": "a dog"}, {"a": "a dog"})
    with pytest.raises(InputError, match="no captions to score"):
        score({}, {})


def test_signature_says_how_the_scores_were_made() -> None:
    ends = f"|brevity:closest|smoothing:none|nltk:{version('nltk')}|captioner:{__version__}"
    five, four, seven = ["a"] * 5, ["a"] * 4, ["a"] * 7
    assert signature([five, five]) == "BLEU|tokens:ptb-coco|case:lower|references:5" + ends
    assert "|references:4-7|" in signature(iter([five, seven, four]))
    with pytest.raises(InputError, match="no references to describe"):
        signature([])
