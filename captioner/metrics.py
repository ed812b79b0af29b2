"""Scores of captions against references, with their signature, and what the captions are like.

Nothing here runs a model.
"""

import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from typing import TypeVar

from .errors import InputError
from .text import split_words

Id = TypeVar("Id", bound=Hashable)
Words = Sequence[str]

# All scores, of each of which more is better.
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")

# Determiners, prepositions, conjunctions with relatives, auxiliaries: words after which more must
# come. What may well end a sentence (by, her, off, outside, that, up) is not here. Of Flickr8k's
# references 0.7 % end in one of these, most of them in "on" ("others look on").
FUNCTION_WORDS = tuple(
    "a an the every my your his its our their whose "
    "of with in on to at from for into onto upon against among between toward towards during "
    "beside under over near along across through "
    "and or but nor as if than because while when where which who "
    "is are was were be been has have had will would could should".split()
)


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 of lists of words, 0-100, keyed "BLEU-1" to "BLEU-4".

    Papineni et al. 2002 as nltk computes it, unsmoothed: counts are summed over the corpus before
    they are divided, and brevity is judged by the reference closest in length (the shorter of two
    as close). An order without a match is 0. An n-gram order longer than a hypothesis counts as
    one miss, so captions of fewer than four words score a trifle lower than in coco-caption.

    hypotheses: one list of words per picture; it may be empty.
    references: for each picture, at least one list of words.
    """
    _check(hypotheses, references)
    from nltk.translate.bleu_score import corpus_bleu

    weights = [(1.0,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4]
    scores = corpus_bleu(references, hypotheses, weights, smoothing_function=_no_smoothing)
    # A precision of "almost zero" leaves at most 1e-77 of a score; that stands for zero.
    return {f"BLEU-{n}": 100.0 * s if s > 1e-70 else 0.0 for n, s in enumerate(scores, start=1)}


def _no_smoothing(precisions: list[Fraction], **_: object) -> list[Fraction | float]:
    """What nltk does without smoothing, less its warning: it needs the logarithm of each."""
    return [precision or sys.float_info.min for precision in precisions]


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """ROUGE-L of lists of words as coco-caption has it, 0-100, the mean over the pictures.

    Lin 2004, equations 2 to 4: the F-measure, beta 1.2, of the longest common subsequence.
    Precision and recall are each the best that a reference of the picture gives.
    """
    _check(hypotheses, references)
    from pycocoevalcap.rouge.rouge import Rouge

    mean, _ = Rouge().compute_score(*_as_coco(hypotheses, references))
    return 100.0 * float(mean)


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr of lists of words as coco-caption has it, times 100, the mean over the pictures.

    The CIDEr-D of Vedantam et al. 2015: n-grams of 1 to 4 words count by how few of the pictures
    given have them in their references. Hence it is 0 of a single picture, compares runs on the
    same pictures only, and goes up to 1000; good captions of COCO get about 100.
    """
    _check(hypotheses, references)
    from pycocoevalcap.cider.cider import Cider

    if not any(words for several in references for words in several):
        return 0.0  # the scorer cannot do without a single word
    mean, _ = Cider().compute_score(*_as_coco(hypotheses, references))
    return 100.0 * float(mean)


def _as_coco(
    hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and captions by picture, as the scorers of coco-caption take them."""
    return (
        {i: [" ".join(words) for words in several] for i, several in enumerate(references)},
        {i: [" ".join(words)] for i, words in enumerate(hypotheses)},
    )


def score(captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> dict[str, float]:
    """All of SCORES of raw sentences, one for each id; both sides must name the same pictures."""
    words = _split(captions, references)
    return {**bleu(*words), "ROUGE-L": rouge_l(*words), "CIDEr": cider(*words)}


@dataclass(frozen=True)
class Statistics:
    """What captions are like, be they right or wrong.

    mean_length: words of a caption. vocabulary_used: number of different words.
    function_endings: how many in 100 end in one of FUNCTION_WORDS. distinct: how many different
    ones there are for 100. brevity_penalty: 0-1, of the whole as BLEU has it by the references
    closest in length; BLEU without it is BLEU / brevity_penalty.
    """

    mean_length: float
    vocabulary_used: int
    function_endings: float
    distinct: float
    brevity_penalty: float

    def __str__(self) -> str:
        return (
            f"{self.mean_length:.2f} words a caption, {self.vocabulary_used} different words, "
            f"{self.function_endings:.1f} % end in a function word, "
            f"{self.distinct:.1f} % distinct, brevity penalty {self.brevity_penalty:.3f}"
        )


def statistics(captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> Statistics:
    """What the captions are like, of the same two sides as `score`."""
    from nltk.translate.bleu_score import brevity_penalty, closest_ref_length

    hypotheses, several = _split(captions, references)
    _check(hypotheses, several)
    lengths = [len(words) for words in hypotheses]
    closest = map(closest_ref_length, several, lengths)
    unfinished = sum(words[-1] in FUNCTION_WORDS for words in hypotheses if words)
    return Statistics(
        mean_length=sum(lengths) / len(lengths),
        vocabulary_used=len({word for words in hypotheses for word in words}),
        function_endings=100.0 * unfinished / len(hypotheses),
        distinct=100.0 * len(set(map(tuple, hypotheses))) / len(hypotheses),
        brevity_penalty=float(brevity_penalty(sum(closest), sum(lengths))),
    )


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise InputError for what is no corpus: a list of words and references for each picture."""
    if not hypotheses:
        raise InputError("there are no captions to score")
    if len(hypotheses) != len(references):
        raise InputError(
            f"every caption needs its references, got {len(hypotheses)} captions "
            f"and references of {len(references)} pictures"
        )
    for i, (hypothesis, several) in enumerate(zip(hypotheses, references, strict=True)):
        if not several:
            raise InputError(f"picture {i} has no references")
        if any(isinstance(words, str) for words in (hypothesis, *several)):
            raise InputError(f"scores compare lists of words, picture {i} has a string; split it")


def _split(
    captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The words of captions and of their references, in the order of the captions."""
    uncaptioned = [id for id in references if id not in captions]
    unreferenced = [id for id in captions if id not in references]
    for ids, trouble in ((uncaptioned, "have no caption"), (unreferenced, "have no references")):
        if ids:
            named = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
            raise InputError(f"{len(ids)} of the pictures to score {trouble}: {named}")
    for id, several in references.items():
        if isinstance(several, str):
            raise InputError(f"the references of picture {id!r} must be a list, got a string")
    return (
        [split_words(captions[id]) for id in captions],
        [[split_words(sentence) for sentence in references[id]] for id in captions],
    )


def signature(references: Iterable[Sized]) -> str:
    """How the scores were made, to be printed with them.

    references: the references of each picture, of which only the number counts.
    """
    from . import __version__

    counts = {len(several) for several in references}
    if not counts:
        raise InputError("there are no references to describe")
    number = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
    return (
        f"BLEU+ROUGE-L+CIDEr|tokens:ptb-coco|case:lower|references:{number}|brevity:closest"
        f"|smoothing:none|nltk:{version('nltk')}|pycocoevalcap:{version('pycocoevalcap')}"
        f"|captioner:{__version__}"
    )
