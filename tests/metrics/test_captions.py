"""Scores against nltk, pycocoevalcap, plain implementations of the equations, and by hand."""

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from nltk.translate.bleu_score import corpus_bleu

from captioner import __version__
from captioner.errors import InputError
from captioner.metrics.captions import (
    bleu,
    cider,
    compute_scores,
    corpus_scores,
    meteor,
    rouge_l,
    select_metrics,
    signature,
)
from tests.support.corpora import Corpus, as_sentences, corpora

NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")  # without METEOR


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=4))
def test_bleu_equals_nltks_for_captions_of_at_least_four_words(corpus: Corpus) -> None:
    hypotheses, references = corpus
    ours = bleu(hypotheses, references)
    assert list(ours) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]
    for order in range(1, 5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = corpus_bleu(references, hypotheses, weights=(1 / order,) * order)
        assert ours[f"BLEU-{order}"] == pytest.approx(100 * theirs, abs=1e-6 if theirs > 0.1 else 1)


@settings(deadline=None, max_examples=100, database=None)
@given(corpora(shortest=0))
def test_bleu_equals_pycocoevalcaps_per_image_and_for_the_corpus(corpus: Corpus) -> None:
    """Captions may have fewer than four words, or none."""
    from pycocoevalcap.bleu.bleu import Bleu

    captions, references = as_sentences(corpus)
    theirs, each = Bleu(4).compute_score(
        references, {i: [text] for i, text in captions.items()}, verbose=0
    )
    assert list(bleu(*corpus).values()) == pytest.approx([100 * s for s in theirs], abs=1e-9)
    found = compute_scores(captions, references, ["bleu"])
    for order, values in enumerate(each, start=1):
        name = f"BLEU-{order}"
        assert found.per_image[name] == pytest.approx([100 * s for s in values], abs=1e-9)
        assert found.corpus[name] == bleu(*corpus)[name]


def test_bleu_by_hand() -> None:
    hypotheses = ["the the cat sat".split(), "a dog runs fast".split()]
    references = [
        ["the cat sat down".split()],
        ["a dog runs".split(), "a dog runs away now".split()],
    ]
    # Unigrams: the cat sat, a dog runs, of 8; bigrams: the cat, cat sat, a dog, dog runs, of 6;
    # trigrams: the cat sat, a dog runs, of 4; 4-grams: none. Closest reference lengths: 4 and 3
    # (of 3 and 5).
    scores = bleu(hypotheses, references)
    assert scores["BLEU-1"] == pytest.approx(100 * 6 / 8)
    assert scores["BLEU-2"] == pytest.approx(100 * (6 / 8 * 4 / 6) ** (1 / 2))
    assert scores["BLEU-3"] == pytest.approx(100 * (6 / 8 * 4 / 6 * 2 / 4) ** (1 / 3))
    assert scores["BLEU-4"] == pytest.approx(0, abs=0.02)


def test_the_brevity_penalty_uses_the_closest_reference() -> None:
    caption = ["a b c d".split()]
    longer = "a b c d e".split()
    penalty = 100 * math.exp(1 - 5 / 4)
    assert bleu(caption, [[longer, longer * 2]])["BLEU-4"] == pytest.approx(penalty)
    assert bleu(caption, [[longer, longer * 2, ["x"] * 3]])["BLEU-4"] == pytest.approx(100)


def test_bleu_of_perfect_and_of_wrong_captions() -> None:
    words = "a dog runs over the grass".split()
    assert bleu([words], [[["x"], words]]) == pytest.approx(
        dict.fromkeys(bleu([words], [[words]]), 100)
    )
    assert list(bleu([words], [[["cat"]]]).values()) == pytest.approx([0] * 4, abs=1e-2)
    assert set(bleu([[]], [[words]]).values()) == {0.0}
    assert list(bleu([words], [[[]]]).values()) == pytest.approx([0] * 4, abs=1e-2)


def test_an_empty_caption_costs_only_the_brevity_penalty() -> None:
    words = "a dog runs over the grass".split()
    scores = bleu([words, []], [[words], [["x"]]])
    assert list(scores.values()) == pytest.approx([100 * math.exp(1 - 7 / 6)] * 4)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "at least one caption is required"),
        ([["a"]], [], "got 1 captions and references for 0 images"),
        ([["a"], ["b"]], [[["a"]], []], r"image 1 \(counted from 0\) has no references"),
        (["a dog"], [[["a"]]], r"image 0 \(counted from 0\) has a string"),
        ([["a"]], [["a dog"]], r"image 0 \(counted from 0\) has a string"),
        ([["a"]], ["a dog"], r"image 0 \(counted from 0\) has a string"),
    ],
)
@pytest.mark.parametrize("metric", [bleu, meteor, rouge_l, cider])
def test_hypotheses_and_references_that_do_not_match_are_refused(
    metric: Callable, hypotheses: list, references: list, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        metric(hypotheses, references)


# ---- ROUGE-L ------------------------------------------------------------------------------------


def longest_common(left: list[str], right: list[str]) -> int:
    """Length of the longest common subsequence, by trying every subsequence of `left`."""

    def contains(words: list[str], part: tuple[str, ...]) -> bool:
        rest = iter(words)
        return all(word in rest for word in part)

    return max(
        n for n in range(len(left) + 1) if any(contains(right, p) for p in combinations(left, n))
    )


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=1, longest=6))
def test_rouge_l_equals_brute_force(corpus: Corpus) -> None:
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
    # "a dog runs" is common: 3 of 5 words and 3 of 4; the other image has nothing in common.
    scores = rouge_l(
        ["a dog quickly runs on".split(), ["cat"]], [["a dog runs away".split()], [["bird"]]]
    )
    assert scores == pytest.approx(50 * 2.44 * 3 / 5 * 3 / 4 / (3 / 4 + 1.44 * 3 / 5))
    # The best precision and the best recall may come from different references.
    assert rouge_l([["a", "b"]], [[["a", "b", "c", "d"], ["a"]]]) == pytest.approx(100)


# ---- CIDEr --------------------------------------------------------------------------------------


def plain_cider(hypotheses: list[list[str]], references: list[list[list[str]]]) -> float:
    """CIDEr-D of Vedantam et al. 2015: clipped cosine of tf-idf vectors, Gaussian of lengths.

    coco-caption's length is the number of bigrams.
    """

    def ngrams(words: list[str], n: int) -> Counter:
        return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))

    def tf_idf(counts: Counter, n: int) -> dict:
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
                vector, ref_vector = (tf_idf(ngrams(w, n), n) for w in (words, reference))
                dot = sum(
                    min(v, ref_vector[g]) * ref_vector[g]
                    for g, v in vector.items()
                    if g in ref_vector
                )
                cosine = dot / (norm(vector) * norm(ref_vector)) if dot else 0.0
                total += 10 * math.exp(-(gap**2) / 72) * cosine / 4 / len(several)
    return 100 * total / len(hypotheses)


@settings(deadline=None, max_examples=60, database=None)
@given(corpora(shortest=0))
def test_cider_equals_its_formula(corpus: Corpus) -> None:
    assert cider(*corpus) == pytest.approx(plain_cider(*corpus), abs=1e-9)


def test_cider_by_hand() -> None:
    references = [["a dog runs home".split()], ["a cat sits".split()]]
    # A caption equal to its reference: cosine 1 in every order, times 10, times 100. "a" is in
    # both images, so its weight is 0.
    assert cider(["a dog runs home".split(), ["a"]], references) == pytest.approx(1000 / 2)
    # Of the reference's "cat sits" only "sits" matches: a unigram cosine of 1 / sqrt(2), no
    # bigram; one bigram fewer gives a factor of exp(-1 / 72).
    scores = cider([["a"], ["sits", "a"]], references)
    assert scores == pytest.approx(1000 / 2 / 4 / math.sqrt(2) * math.exp(-1 / 72))
    assert cider(["a dog".split()], [["a dog".split()]]) == 0  # with one image no word is rare


# ---- all metrics ---------------------------------------------------------------------------------


def test_captions_without_words(capfd: pytest.CaptureFixture[str]) -> None:
    references = {1: ["a dog runs fast"], 2: ["the cat"], 3: ["..."]}
    scores = corpus_scores({1: "a dog runs fast", 2: "", 3: "!"}, references)
    assert tuple(scores) == NAMES
    assert all(0 <= value < 1000 for value in scores.values())
    assert scores["CIDEr"] == pytest.approx(1000 / 3)
    empty = corpus_scores({1: "", 2: "..."}, {1: ["a dog"], 2: ["cat", ""]})
    assert empty["BLEU-1"] == empty["CIDEr"] == 0
    unmatched = corpus_scores({1: "a dog"}, {1: ["?", ""]})
    assert unmatched == pytest.approx(dict.fromkeys(NAMES, 0), abs=0.2)
    assert capfd.readouterr() == ("", "")  # the scorers print nothing


def test_sentences_are_tokenized_before_they_are_scored() -> None:
    captions = {7: "A dog doesn't run!", "x": "Two men\nride bikes."}
    references = {
        "x": ["two men ride", "two men ride bikes"],
        7: ("a dog does n't run .", "The dog isn’t running"),
    }
    scores = corpus_scores(captions, references)
    assert scores.pop("CIDEr") > 500  # one of two references is the caption
    assert scores == pytest.approx(dict.fromkeys(NAMES[:-1], 100))
    assert corpus_scores({1: "a dog"}, {1: ["a cat", "dog"]})["BLEU-1"] == pytest.approx(100)


def test_a_line_break_in_a_caption_does_not_change_the_scores() -> None:
    references = {i: ["a brown dog runs fast"] for i in range(3)}
    plain = {0: "a brown dog", 1: "a cat", 2: "a brown dog runs fast"}
    broken = {0: "a\u2028brown\r\ndog", 1: "a\x85cat\x0b", 2: "a brown\0dog runs fast\n"}
    assert corpus_scores(broken, references) == corpus_scores(plain, references)


def test_missing_images_are_named() -> None:
    ids = {i: ["a"] for i in range(12)}
    with pytest.raises(
        InputError, match=r"^there is no caption for 12 .*: 0, 1, 2, .*8, 9, \.\.\.; "
    ):
        corpus_scores({}, ids)
    with pytest.raises(InputError, match=r"^there are no references for 1 of the images .*: 'b'; "):
        corpus_scores({"a": "a dog", "b": "a dog"}, {"a": ["a dog"]})
    text_id: dict[int | str, str] = {"1": "a dog"}
    number_id: dict[int | str, list[str]] = {1: ["a dog"]}
    with pytest.raises(InputError, match=r"^there is no caption for 1 of the images to score: 1; "):
        corpus_scores(text_id, number_id)


def test_one_string_for_references_is_refused() -> None:
    with pytest.raises(InputError, match="references of image 'a' must be a list, got a string"):
        corpus_scores({"a": "a dog"}, {"a": "a dog"})
    with pytest.raises(InputError, match="at least one caption is required"):
        corpus_scores({}, {})


def test_signature_describes_how_the_scores_were_computed() -> None:
    start = "BLEU+ROUGE-L+CIDEr|tokens:ptb-coco|case:lower"
    versions = f"|nltk:{version('nltk')}|pycocoevalcap:{version('pycocoevalcap')}"
    end = f"|brevity:closest|smoothing:none{versions}|captioner:{__version__}"
    five, four, seven = ["a"] * 5, ["a"] * 4, ["a"] * 7
    assert signature([five, five]) == start + "|references:5" + end
    assert "|references:4-7|" in signature(iter([five, seven, four]))
    partial = signature([five], ["METEOR", "CIDEr"])
    assert partial.startswith("METEOR+CIDEr|tok")
    assert "|meteor:1.5|captioner:" in partial
    with pytest.raises(InputError, match="a signature requires references"):
        signature([])


# ---- some metrics --------------------------------------------------------------------------------


def test_only_the_metrics_asked_for_and_scores_per_image() -> None:
    captions = {"b": "a dog runs", "a": "two men ride", "c": "grass"}
    references = {"a": ["men ride bikes", "two men"], "b": ["a dog runs"], "c": ["the sky"]}
    found = compute_scores(captions, references, ["cider", "rouge-l"])
    assert found.ids == ("b", "a", "c")
    assert found.note.endswith("words, so CIDEr is at most 583 instead of 1000")
    assert list(found.corpus) == list(found.per_image) == ["ROUGE-L", "CIDEr"]
    assert found.per_image["ROUGE-L"][0] == pytest.approx(100)
    assert found.per_image["CIDEr"][2] == 0
    for name, values in found.per_image.items():
        assert found.corpus[name] == pytest.approx(sum(values) / 3)
    everything = corpus_scores(captions, references)
    assert found.corpus == {name: everything[name] for name in found.corpus}


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(InputError, match=r"^unknown metric 'spice'; choose from bleu, meteor, r"):
        select_metrics(["bleu", "spice"])
    with pytest.raises(InputError, match=r"^no metrics selected; choose from"):
        compute_scores({1: "a"}, {1: ["a"]}, [])
    assert select_metrics(["cider", "bleu"]) == ("bleu", "cider")
    assert select_metrics(["CIDEr", "BLEU-4", "bleu-1", "Rouge-L"]) == ("bleu", "rouge-l", "cider")


def test_meteor_is_left_out_without_java_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = "METEOR needs Java, but java is not on the PATH; install Java or leave METEOR out"
    found = compute_scores({1: "a dog"}, {1: ["a dog"]}, None)
    assert tuple(found.corpus) == NAMES
    assert found.note.splitlines()[0] == f"note: scored without METEOR: {message}"
    with pytest.raises(InputError, match=message):
        compute_scores({1: "a dog"}, {1: ["a dog"]}, ["meteor"])
    with pytest.raises(InputError, match=message):
        meteor([["a"]], [[["a"]]])


# ---- few and short captions ---------------------------------------------------------------------


def perfect(*captions):
    """Scores of captions that equal their only reference."""
    return compute_scores(dict(enumerate(captions)), {i: [c] for i, c in enumerate(captions)})


@pytest.mark.parametrize(
    ("captions", "bleu_4", "cider", "notes"),
    [
        (["a dog runs in the park"], 100, 0, ["CIDEr of a single image is always 0"]),
        (["a red ball rolls", "the blue box falls"], 100, 1000, []),
        (
            ["a red ball", "the blue box", "one green hat"],
            3.2,
            750,
            [
                "no caption has 4 or more words, so BLEU-4 is at most 3.2",
                "CIDEr is at most 750 instead",
            ],
        ),
        (["red ball", "blue box", "green hat"], 0.1, 500, ["no caption has 4", "at most 500"]),
        (
            ["red", "blue", "green"],
            0,
            250,
            ["no caption has", "at most 250", "single"],
        ),
        (["red", "a blue box falls here"], 100, 625, ["many .* CIDEr is at most 625 instead of"]),
        (["a red ball", *(f"the {i} box falls" for i in range(9))], 100, 975, []),
    ],
)
def test_limits_of_few_and_short_captions(captions, bleu_4, cider, notes):
    """Even perfect captions do not score higher, which the notes say."""
    found = perfect(*captions)
    assert found.corpus["BLEU-4"] == pytest.approx(bleu_4, abs=0.05)
    assert found.corpus["CIDEr"] == pytest.approx(cider, abs=1)
    for line, note in zip(found.note.splitlines(), notes, strict=True):
        assert re.search(f"^note: .*{note}", line)


def test_limits_of_scores_that_were_not_asked_for_are_not_noted():
    assert compute_scores({1: "a dog"}, {1: ["a dog"]}, ["rouge-l"]).note == ""
