"""BLEU, METEOR, ROUGE-L and CIDEr of captions, with their signature.

No model is run here; statistics.py contains the counts and formula of each metric.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import TypeVar

from .._version import __version__
from ..errors import InputError
from ..text.tokenizer import WORDS, Tokenizer, one_word_note
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
ORDERS = 4  # BLEU and CIDEr count n-grams of up to so many words
ENOUGH = 0.9  # of the n-grams that captions of ORDERS words or more have; with fewer, a note

METRICS: dict[str, Callable[..., SufficientStatistics]] = {
    "bleu": bleu_statistics,
    "meteor": meteor_statistics,
    "rouge-l": rouge_l_statistics,
    "cider": cider_statistics,
}
WITHOUT_JAVA = ("bleu", "rouge-l", "cider")
# Names of all scores; higher is better for each.
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Compute corpus BLEU-1 to BLEU-4 of lists of words, 0-100, by name.

    Papineni et al. 2002 as computed by coco-caption: counts are summed over the corpus before
    they are divided, and the brevity penalty uses the reference closest in length (the shorter of
    two equally close ones). If no n-gram of order n matches, 1e-15 matches are assumed, so BLEU-n
    is at most 0.02, or 3.2 if no caption has n words.

    hypotheses: one list of words per image, possibly empty.
    references: at least one list of words for each image.
    Raises InputError if hypotheses and references do not match.
    """
    _check_corpus(hypotheses, references)
    return bleu_statistics(hypotheses, references).corpus


def meteor(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Compute METEOR 1.5 of lists of words, 0-100, as in coco-caption; requires Java.

    This is the English METEOR of Denkowski and Lavie 2014. Counts are summed over the corpus, as
    for BLEU. Raises InputError if Java is missing or fails, or if hypotheses and references do not
    match.
    """
    _check_corpus(hypotheses, references)
    return meteor_statistics(hypotheses, references).corpus["METEOR"]


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Compute ROUGE-L of lists of words, 0-100, as in coco-caption: the mean over the images.

    Lin 2004, equations 2 to 4: the F-measure (beta 1.2) of the longest common subsequence, with
    the maximum precision and the maximum recall over the image's references. Errors are as in
    `bleu`.
    """
    _check_corpus(hypotheses, references)
    return rouge_l_statistics(hypotheses, references).corpus["ROUGE-L"]


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """Compute CIDEr of lists of words, times 100, as in coco-caption: the mean over the images.

    This is CIDEr-D of Vedantam et al. 2015. An n-gram of 1 to 4 words has a higher weight if fewer
    images have references that contain it. Hence the score of a single image is 0, and scores are
    comparable only on the same images. The maximum is 1000; good captions of COCO images score
    about 100. Errors are as in `bleu`.
    """
    _check_corpus(hypotheses, references)
    return cider_statistics(hypotheses, references).corpus["CIDEr"]


@dataclass(frozen=True)
class Scores:
    """The scores of captions, kept as sufficient statistics.

    ids: image ids. statistics: counts of each metric, one row per image, by name of the metric.
    note: notes on an omitted metric, on captions without spaces, and on scores that are low because
    the captions are few or short; an empty string if there are none. tokenizer: the tokenizer that
    split captions and references.
    """

    ids: tuple[Hashable, ...]
    statistics: dict[str, SufficientStatistics]
    note: str = ""
    tokenizer: Tokenizer = WORDS

    @property
    def corpus(self) -> dict[str, float]:
        """The scores of all images together, by name."""
        parts = (each.corpus for each in self.statistics.values())
        return {name: value for part in parts for name, value in part.items()}

    @property
    def per_image(self) -> dict[str, list[float]]:
        """The scores of individual images as in coco-caption, by name, in the order of `ids`."""
        parts = (each.per_image for each in self.statistics.values())
        return {name: values for part in parts for name, values in part.items()}


def compute_scores(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    metrics: Sequence[str] | None = WITHOUT_JAVA,
    tokenizer: Tokenizer = WORDS,
) -> Scores:
    """Score captions against references; both are keyed by image id.

    metrics: names from METRICS or SCORES; None selects all, METEOR only if Java works. Raises
    InputError if captions and references are empty or cover different images, if an image has no
    references, or if a requested metric is unknown or cannot be computed.
    """
    hypotheses, split_references = split_corpus(captions, references, tokenizer)
    selected = tuple(METRICS) if metrics is None else select_metrics(metrics)
    statistics, notes = {}, []
    for metric in selected:
        try:
            statistics[metric] = METRICS[metric](hypotheses, split_references)
        except InputError as error:
            if metric != "meteor" or metrics is not None:
                raise
            notes.append(f"note: scored without METEOR: {error}")
    notes += _limits(hypotheses, selected)
    if note := one_word_note((text for texts in references.values() for text in texts), tokenizer):
        notes.append(f"note: {note}")
    return Scores(tuple(captions), statistics, "\n".join(notes), tokenizer)


def _limits(hypotheses: Sequence[Words], metrics: Collection[str]) -> list[str]:
    """Return notes on scores that are low even for perfect captions, because of the formulas.

    CIDEr gives no weight to n-grams that occur in the references of every image, so a single image
    scores 0. CIDEr is a mean over n-grams of 1 to 4 words, and BLEU-4 is a geometric mean over
    them; a caption with fewer than 4 words has no n-grams of the higher orders.
    """
    counts = [min(len(words), ORDERS) for words in hypotheses]
    longest, share = max(counts), sum(counts) / ORDERS / len(counts)
    notes = []
    if "bleu" in metrics and longest < ORDERS:
        notes.append(
            f"note: no caption has {ORDERS} or more words, so BLEU-{ORDERS} is at most 3.2 even "
            "if every caption is perfect"
        )
    if "cider" in metrics and len(counts) == 1:
        notes.append("note: CIDEr of a single image is always 0; score more images together")
    elif "cider" in metrics and share < ENOUGH:
        notes.append(
            f"note: many captions have fewer than {ORDERS} words, so CIDEr is at most "
            f"{1000 * share:.0f} instead of 1000"
        )
    return notes


def corpus_scores(
    captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]
) -> dict[str, float]:
    """Compute all corpus scores that do not need Java, by name; see `compute_scores`."""
    return compute_scores(captions, references).corpus


def select_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics, in the order of METRICS, selected by metric or score name ("BLEU-4").

    Case is ignored. Raises InputError, before anything is computed, if there are no names, if a
    name is unknown, or if METEOR is selected but Java is missing.
    """
    metric_of = {name.lower(): name.lower().rstrip("-1234") for name in (*METRICS, *SCORES)}
    unknown = [name for name in names if name.lower() not in metric_of]
    if unknown or not names:
        problem = (
            f"unknown metric{'s' * (len(unknown) > 1)} {', '.join(map(repr, unknown))}"
            if unknown
            else "no metrics selected"
        )
        raise InputError(f"{problem}; choose from {', '.join(METRICS)}")
    selected = {metric_of[name.lower()] for name in names}
    if "meteor" in selected:
        find_java()
    return tuple(name for name in METRICS if name in selected)


def _check_corpus(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise InputError unless each image has a caption and references, all as lists of words."""
    if not hypotheses:
        raise InputError("at least one caption is required for scoring, got none")
    if len(hypotheses) != len(references):
        raise InputError(
            f"every caption needs references, got {len(hypotheses)} captions "
            f"and references for {len(references)} images"
        )
    for i, (words, image_references) in enumerate(zip(hypotheses, references, strict=True)):
        if not image_references:
            raise InputError(f"image {i} (counted from 0) has no references; add at least one")
        if any(isinstance(each, str) for each in (words, *image_references)):
            raise InputError(
                f"image {i} (counted from 0) has a string instead of a list of words; split it "
                "into words"
            )


@lru_cache(2**16)  # the same references are scored every epoch
def _split(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.split(text)


def split_corpus(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    tokenizer: Tokenizer = WORDS,
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Split captions and references into words, both in the order of the captions.

    Raises InputError if they are empty or cover different images, or if the references of an image
    are missing or not a list.
    """
    uncaptioned = [id for id in references if id not in captions]
    unreferenced = [id for id in captions if id not in references]
    for ids, lacking in ((uncaptioned, "is no caption"), (unreferenced, "are no references")):
        if ids:
            listed = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
            raise InputError(
                f"there {lacking} for {len(ids)} of the images to score: {listed}; captions and "
                "references must cover the same images"
            )
    for id, sentences in references.items():
        if isinstance(sentences, str):
            raise InputError(f"the references of image {id!r} must be a list, got a string")
        if not sentences:
            raise InputError(f"image {id!r} has no references; add at least one")
    hypotheses = [_split(tokenizer, captions[id]) for id in captions]
    split_references = [[_split(tokenizer, text) for text in references[id]] for id in captions]
    _check_corpus(hypotheses, split_references)
    return hypotheses, split_references


def signature(
    references: Iterable[Sized], scores: Iterable[str] | None = None, tokenizer: str = WORDS.name
) -> str:
    """Return a one-line description of how scores were computed, to be printed with them.

    references: references of each image; only their number matters. scores: names of the scores;
    None for all that do not need Java. tokenizer: name of the tokenizer. Raises InputError if there
    are no references.
    """
    counts = {len(image_references) for image_references in references}
    if not counts:
        raise InputError("a signature requires references, got none")
    number = "-".join(str(count) for count in sorted({min(counts), max(counts)}))
    names = [name for name in SCORES if name != "METEOR"] if scores is None else list(scores)
    tokens = "ptb-coco" if tokenizer == WORDS.name else tokenizer
    metrics = "+".join(dict.fromkeys(name.rstrip("-1234") for name in names))
    return (
        f"{metrics}|tokens:{tokens}|case:lower|references:{number}|brevity:closest"
        f"|smoothing:none|nltk:{version('nltk')}|pycocoevalcap:{version('pycocoevalcap')}"
        + "|meteor:1.5" * ("METEOR" in names)
        + f"|captioner:{__version__}"
    )
