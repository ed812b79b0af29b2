"""Scores of captions against references, with their signature.

Nothing here runs a model; how each metric counts is tallies.py's.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TypeVar

from .._version import __version__
from ..errors import InputError
from ..text.tokenizer import split_words
from .meteor import find_java
from .statistics import (
    SufficientStatistics,
    Words,
    bleu_statistics,
    cider_statistics,
    meteor_statistics,
    rouge_l_statistics,
)

Id = TypeVar("Id", bound=Hashable)

METRICS: dict[str, Callable[..., SufficientStatistics]] = {
    "bleu": bleu_statistics,
    "meteor": meteor_statistics,
    "rouge-l": rouge_l_statistics,
    "cider": cider_statistics,
}
WITHOUT_JAVA = ("bleu", "rouge-l", "cider")
# All scores, of each of which more is better.
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 of lists of words, 0-100, keyed "BLEU-1" to "BLEU-4".

    Papineni et al. 2002 as coco-caption has it: counts are summed over the corpus before they are
    divided, and brevity is judged by the reference closest in length (the shorter of two as
    close). An order without a match counts as 1e-15 of one, so that such a score is 0.02 at most,
    or 3.2 where no caption has n words.

    hypotheses: one list of words per image; it may be empty.
    references: for each image, at least one list of words.
    """
    _check(hypotheses, references)
    return _named(bleu_statistics(hypotheses, references))


def meteor(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """METEOR 1.5 of lists of words, 0-100, as coco-caption has it; the one score that needs Java.

    Denkowski and Lavie 2014, for English. Counts are summed over the corpus as BLEU's are. Raises
    InputError where there is no Java, or it fails.
    """
    _check(hypotheses, references)
    return _named(meteor_statistics(hypotheses, references))["METEOR"]


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """ROUGE-L of lists of words as coco-caption has it, 0-100, the mean over the images.

    Lin 2004, equations 2 to 4: the F-measure, beta 1.2, of the longest common subsequence.
    Precision and recall are each the best that a reference of the image gives.
    """
    _check(hypotheses, references)
    return _named(rouge_l_statistics(hypotheses, references))["ROUGE-L"]


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr of lists of words as coco-caption has it, times 100, the mean over the images.

    The CIDEr-D of Vedantam et al. 2015: n-grams of 1 to 4 words count by how few of the images
    given have them in their references. Hence it is 0 of a single image, compares runs on the
    same images only, and goes up to 1000; good captions of COCO get about 100.
    """
    _check(hypotheses, references)
    return _named(cider_statistics(hypotheses, references))["CIDEr"]


def _named(tally: SufficientStatistics) -> dict[str, float]:
    return dict(zip(tally.names, map(float, tally.corpus), strict=True))


@dataclass(frozen=True)
class Scores:
    """What captions got: the images' ids, and by metric asked for what it counted.

    note: which metric was left out, and why; empty where none was.
    """

    ids: tuple[Hashable, ...]
    tallies: dict[str, SufficientStatistics]
    note: str = ""

    @property
    def corpus(self) -> dict[str, float]:
        """By name of the score, of all images together."""
        tallies = self.tallies.values()
        return {name: value for tally in tallies for name, value in _named(tally).items()}

    @property
    def per_image(self) -> dict[str, list[float]]:
        """By name of the score, of each image alone; coco-caption's own values, BLEU's, too."""
        return {
            name: values
            for tally in self.tallies.values()
            for name, values in zip(tally.names, tally.per_image.T.tolist(), strict=True)
        }


def measure(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    metrics: Sequence[str] | None = WITHOUT_JAVA,
) -> Scores:
    """Score raw sentences, one for each id; both sides must name the same images.

    metrics: of METRICS, or None for all, METEOR only where Java gives it.
    """
    words = split_both(captions, references)
    wanted = tuple(METRICS) if metrics is None else chosen(metrics)
    tallies, note = {}, ""
    for metric in wanted:
        try:
            tallies[metric] = METRICS[metric](*words)
        except InputError as error:
            if metric != "meteor" or metrics is not None:
                raise
            note = f"note: scored without METEOR: {error}"
    return Scores(tuple(captions), tallies, note)


def chosen(metrics: Sequence[str]) -> tuple[str, ...]:
    """Metrics named so or by a score of theirs, as BLEU-4 is bleu's; in the order of METRICS.

    Case does not count. Raises InputError for none, for unknown ones, and for METEOR where there is
    no Java, before any work is done.
    """
    known = {name.lower(): name.lower().rstrip("-1234") for name in (*METRICS, *SCORES)}
    unknown = [name for name in metrics if name.lower() not in known]
    if unknown or not metrics:
        raise InputError(
            f"unknown metrics {', '.join(map(repr, unknown)) or '(none)'}; "
            f"choose from {', '.join(METRICS)}"
        )
    wanted = {known[name.lower()] for name in metrics}
    if "meteor" in wanted:
        find_java()
    return tuple(name for name in METRICS if name in wanted)


def score(captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> dict[str, float]:
    """All corpus scores that need no Java, by name, of raw sentences as `measure` takes them."""
    return measure(captions, references).corpus


def _check(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise InputError for what is no corpus: a list of words and references for each image."""
    if not hypotheses:
        raise InputError("there are no captions to score")
    if len(hypotheses) != len(references):
        raise InputError(
            f"every caption needs its references, got {len(hypotheses)} captions "
            f"and references of {len(references)} images"
        )
    for i, (hypothesis, several) in enumerate(zip(hypotheses, references, strict=True)):
        if not several:
            raise InputError(f"image {i} has no references")
        if any(isinstance(words, str) for words in (hypothesis, *several)):
            raise InputError(f"scores compare lists of words, image {i} has a string; split it")


_words = lru_cache(2**16)(split_words)  # references are scored epoch after epoch


def split_both(
    captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """The words of captions and of their references, in the order of the captions.

    Raises InputError where they are not of the same images, at least one, each with references.
    """
    uncaptioned = [id for id in references if id not in captions]
    unreferenced = [id for id in captions if id not in references]
    for ids, trouble in ((uncaptioned, "have no caption"), (unreferenced, "have no references")):
        if ids:
            named = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
            raise InputError(f"{len(ids)} of the images to score {trouble}: {named}")
    for id, several in references.items():
        if isinstance(several, str):
            raise InputError(f"the references of image {id!r} must be a list, got a string")
    hypotheses = [_words(captions[id]) for id in captions]
    theirs = [[_words(sentence) for sentence in references[id]] for id in captions]
    _check(hypotheses, theirs)
    return hypotheses, theirs


def signature(references: Iterable[Sized], scores: Iterable[str] | None = None) -> str:
    """How the scores were made, to be printed with them.

    references: the references of each image, of which only the number counts. scores: their
    names; those that need no Java unless given.
    """
    counts = {len(several) for several in references}
    if not counts:
        raise InputError("there are no references to describe")
    number = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
    names = [name for name in SCORES if name != "METEOR"] if scores is None else list(scores)
    metrics = "+".join(dict.fromkeys(name.rstrip("-1234") for name in names))
    return (
        f"{metrics}|tokens:ptb-coco|case:lower|references:{number}|brevity:closest"
        f"|smoothing:none|nltk:{version('nltk')}|pycocoevalcap:{version('pycocoevalcap')}"
        + "|meteor:1.5" * ("METEOR" in names)
        + f"|captioner:{__version__}"
    )
