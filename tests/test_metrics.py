"""Scores against nltk, pycocoevalcap and plain rewrites of their equations, and by hand."""

import math
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu, modified_precision

from captioner import __version__
from captioner.errors import InputError
from captioner.metrics import (
    FUNCTION_WORDS,
    SCORES,
    Statistics,
    bleu,
    cider,
    rouge_l,
    score,
    signature,
    statistics,
)

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def corpora(shortest: int, longest: int = 9) -> st.SearchStrategy[Corpus]:
    """Captions of at least `shortest` words, with references of any length, ties included."""
    words = st.sampled_from(["a", "dog", "runs", "n't"])
    caption = st.lists(words, min_size=shortest, max_size=longest)
    references = st.lists(st.lists(words, max_size=longest), min_size=1, max_size=5)
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
@pytest.mark.parametrize("metric", [bleu, rouge_l, cider])
def test_what_is_no_corpus(
    metric: Callable, hypotheses: list, references: list, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        metric(hypotheses, references)


# ---- ROUGE-L ------------------------------------------------------------------------------------


def longest_common(left: list[str], right: list[str]) -> int:
    """By trying every subsequence of the left."""

    def holds(words: list[str], part: tuple[str, ...]) -> bool:
        rest = iter(words)
        return all(word in rest for word in part)

    return max(
        n for n in range(len(left) + 1) if any(holds(right, p) for p in combinations(left, n))
    )


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=1, longest=6))
def test_rouge_l_by_brute_force(corpus: Corpus) -> None:
    hypotheses, references = corpus
    scores = []
    for words, several in zip(hypotheses, references, strict=True):
        common = [longest_common(words, reference) for reference in several]
        precision = max(common) / len(words)
        recall = max(c / max(1, len(r)) for c, r in zip(common, several, strict=True))
        f = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if recall else 0
        scores.append(f)
    assert rouge_l(hypotheses, references) == pytest.approx(100 * sum(scores) / len(scores))


def test_rouge_l_by_hand() -> None:
    # a dog runs: 3 of 5 words, 3 of 4; the other picture has nothing in common.
    scores = rouge_l(
        ["a dog quickly runs on".split(), ["cat"]], [["a dog runs away".split()], [["bird"]]]
    )
    assert scores == pytest.approx(50 * 2.44 * 3 / 5 * 3 / 4 / (3 / 4 + 1.44 * 3 / 5))
    # The best precision and the best recall need not be of one reference.
    assert rouge_l([["a", "b"]], [[["a", "b", "c", "d"], ["a"]]]) == pytest.approx(100)


# ---- CIDEr --------------------------------------------------------------------------------------


def plain_cider(hypotheses: list[list[str]], references: list[list[list[str]]]) -> float:
    """CIDEr-D of Vedantam et al. 2015: clipped cosine of tf-idf vectors, Gaussian of lengths.

    coco-caption counts lengths in pairs of words.
    """

    def ngrams(words: list[str], n: int) -> Counter:
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def weighed(counts: Counter, n: int) -> dict:
        seen = {
            gram: sum(any(gram in ngrams(words, n) for words in several) for several in references)
            for gram in counts
        }
        return {g: c * math.log(len(references) / max(1, seen[g])) for g, c in counts.items()}

    def norm(vector: dict) -> float:
        return math.sqrt(sum(value**2 for value in vector.values()))

    total = 0.0
    for words, several in zip(hypotheses, references, strict=True):
        for reference in several:
            gap = max(0, len(words) - 1) - max(0, len(reference) - 1)
            for n in range(1, 5):
                ours, theirs = (weighed(ngrams(w, n), n) for w in (words, reference))
                dot = sum(min(v, theirs[g]) * theirs[g] for g, v in ours.items() if g in theirs)
                cosine = dot / (norm(ours) * norm(theirs)) if dot else 0.0
                total += 10 * math.exp(-(gap**2) / 72) * cosine / 4 / len(several)
    return 100 * total / len(hypotheses)


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=0))
def test_cider_by_its_formula(corpus: Corpus) -> None:
    assert cider(*corpus) == pytest.approx(plain_cider(*corpus), abs=1e-9)


def test_cider_by_hand() -> None:
    references = [["a dog runs home".split()], ["a cat sits".split()]]
    # Its own reference: a cosine of 1 in every order, ten times 100 of it; "a" tells nothing.
    assert cider(["a dog runs home".split(), ["a"]], references) == pytest.approx(1000 / 2)
    # Of three words "dog" and "runs" count, of which one is there: 1 / sqrt(2), no pair of words
    # is; two pairs less, a factor of exp(-4 / 72).
    scores = cider([["a"], ["sits", "a"]], references)
    assert scores == pytest.approx(1000 / 2 / 4 / math.sqrt(2) * math.exp(-1 / 72))
    assert cider(["a dog".split()], [["a dog".split()]]) == 0  # of one picture no word is rare


# ---- all of them --------------------------------------------------------------------------------


def test_captions_of_no_words(capfd: pytest.CaptureFixture[str]) -> None:
    references = {1: ["a dog runs fast"], 2: ["the cat"], 3: ["..."]}
    some = score({1: "a dog runs fast", 2: "", 3: "!"}, references)
    assert tuple(some) == SCORES and all(0 <= value < 1000 for value in some.values())
    assert some["CIDEr"] == pytest.approx(1000 / 3)
    none = score({1: "", 2: "..."}, {1: ["a dog"], 2: ["cat", ""]})
    assert none["BLEU-1"] == none["CIDEr"] == 0
    assert score({1: "a dog"}, {1: ["?", ""]}) == dict.fromkeys(SCORES, 0)
    assert statistics({1: ""}, {1: ["a dog"]}) == Statistics(0, 0, 0, 100, 0)
    assert capfd.readouterr() == ("", "")  # the scorers keep silent


def test_score_takes_sentences_apart_first() -> None:
    captions = {7: "A dog doesn't run!", "x": "Two men\nride bikes."}
    references = {
        "x": ["two men ride", "two men ride bikes"],
        7: ("a dog does n't run .", "The dog isn’t running"),
    }
    scores = score(captions, references)
    assert scores.pop("CIDEr") > 500  # one of two references is the caption
    assert scores == pytest.approx(dict.fromkeys(SCORES[:-1], 100))
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
    starts = "BLEU+ROUGE-L+CIDEr|tokens:ptb-coco|case:lower"
    versions = f"|nltk:{version('nltk')}|pycocoevalcap:{version('pycocoevalcap')}"
    ends = f"|brevity:closest|smoothing:none{versions}|captioner:{__version__}"
    five, four, seven = ["a"] * 5, ["a"] * 4, ["a"] * 7
    assert signature([five, five]) == starts + "|references:5" + ends
    assert "|references:4-7|" in signature(iter([five, seven, four]))
    with pytest.raises(InputError, match="no references to describe"):
        signature([])


# ---- statistics ---------------------------------------------------------------------------------


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
@given(corpora(shortest=0))
def test_bleu_is_the_brevity_penalty_times_the_precision(corpus: Corpus) -> None:
    hypotheses, references = corpus
    both = [
        {i: " ".join(words) for i, words in enumerate(hypotheses)},
        {i: list(map(" ".join, several)) for i, several in enumerate(references)},
    ]
    precisions = [
        modified_precision(r, h, n=1) for h, r in zip(hypotheses, references, strict=True)
    ]
    precision = sum(p.numerator for p in precisions) / sum(p.denominator for p in precisions)
    penalty = statistics(*both).brevity_penalty
    assert 0 <= penalty <= 1
    assert score(*both)["BLEU-1"] == pytest.approx(100 * precision * penalty)


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
