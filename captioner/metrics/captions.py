"""BLEU, METEOR, ROUGE-L and CIDEr of captions, with their signature.

No model is run here; statistics.py has the counts and formula of each metric.
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
# Names of all scores; higher is better for each.
SCORES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


def bleu(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 of lists of words, 0-100, keyed "BLEU-1" to "BLEU-4".

    Papineni et al. 2002 as computed by coco-caption: counts are summed over the corpus before
    they are divided, and the brevity penalty uses the reference closest in length (the shorter of
    two equally close ones). An order without a match counts as 1e-15 matches, so that such a
    score is at most 0.02, or 3.2 if no caption has n words.

    hypotheses: one list of words per image, which may be empty.
    references: for each image, at least one list of words.
    Raises InputError if they do not match.
    """
    _check_corpus(hypotheses, references)
    return bleu_statistics(hypotheses, references).corpus


def meteor(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """METEOR 1.5 of lists of words, 0-100, as computed by coco-caption; needs Java.

    Denkowski and Lavie 2014, for English. Counts are summed over the corpus as BLEU's are. Raises
    InputError if Java is missing or fails, or if hypotheses and references do not match.
    """
    _check_corpus(hypotheses, references)
    return meteor_statistics(hypotheses, references).corpus["METEOR"]


def rouge_l(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """ROUGE-L of lists of words, 0-100, as computed by coco-caption: the mean over the images.

    Lin 2004, equations 2 to 4: the F-measure, beta 1.2, of the longest common subsequence.
    Precision and recall are each the maximum over the image's references.
    """
    _check_corpus(hypotheses, references)
    return rouge_l_statistics(hypotheses, references).corpus["ROUGE-L"]


def cider(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """CIDEr of lists of words as computed by coco-caption, times 100: the mean over the images.

    This is CIDEr-D of Vedantam et al. 2015. N-grams of 1 to 4 words are weighted by how few of
    the images given have them in their references. Hence the score of a single image is 0, scores
    are comparable only on the same images, and the maximum is 1000; good captions of COCO get
    about 100.
    """
    _check_corpus(hypotheses, references)
    return cider_statistics(hypotheses, references).corpus["CIDEr"]


@dataclass(frozen=True)
class Scores:
    """The scores of captions, kept as sufficient statistics.

    ids: of the images. statistics: by metric, one row of counts per image. note: which metric was
    left out and why, or empty.
    """

    ids: tuple[Hashable, ...]
    statistics: dict[str, SufficientStatistics]
    note: str = ""

    @property
    def corpus(self) -> dict[str, float]:
        """The scores of all images together, by name."""
        parts = (each.corpus for each in self.statistics.values())
        return {name: value for part in parts for name, value in part.items()}

    @property
    def per_image(self) -> dict[str, list[float]]:
        """The scores of the single images, in the order of `ids`, by name; as coco-caption's."""
        parts = (each.per_image for each in self.statistics.values())
        return {name: values for part in parts for name, values in part.items()}


def compute_scores(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    metrics: Sequence[str] | None = WITHOUT_JAVA,
) -> Scores:
    """Score sentences against references; both are keyed by image.

    metrics: names from METRICS or SCORES, or None for all, METEOR only if Java works. Raises
    InputError if the two sides do not name the same images, at least one, or an image has no
    references, or a metric that was asked for cannot be computed.
    """
    hypotheses, split_references = split_corpus(captions, references)
    selected = tuple(METRICS) if metrics is None else select_metrics(metrics)
    statistics, note = {}, ""
    for metric in selected:
        try:
            statistics[metric] = METRICS[metric](hypotheses, split_references)
        except InputError as error:
            if metric != "meteor" or metrics is not None:
                raise
            note = f"note: scored without METEOR: {error}"
    return Scores(tuple(captions), statistics, note)


def corpus_scores(
    captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]
) -> dict[str, float]:
    """All corpus scores that need no Java, by name; arguments as in `compute_scores`."""
    return compute_scores(captions, references).corpus


def select_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Metrics named by themselves or by one of their scores ("BLEU-4"), in the order of METRICS.

    Case is ignored. Raises InputError if there are no names or unknown ones, and for METEOR
    without Java, before any work is done.
    """
    metric_of = {name.lower(): name.lower().rstrip("-1234") for name in (*METRICS, *SCORES)}
    unknown = [name for name in names if name.lower() not in metric_of]
    if unknown or not names:
        raise InputError(
            f"unknown metrics {', '.join(map(repr, unknown)) or '(none)'}; "
            f"choose from {', '.join(METRICS)}"
        )
    selected = {metric_of[name.lower()] for name in names}
    if "meteor" in selected:
        find_java()
    return tuple(name for name in METRICS if name in selected)


def _check_corpus(hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Raise InputError unless each image has a caption and references, all as lists of words."""
    if not hypotheses:
        raise InputError("there are no captions to score")
    if len(hypotheses) != len(references):
        raise InputError(
            f"every caption needs its references, got {len(hypotheses)} captions "
            f"and references for {len(references)} images"
        )
    for i, (words, image_references) in enumerate(zip(hypotheses, references, strict=True)):
        if not image_references:
            raise InputError(f"image {i} has no references")
        if any(isinstance(each, str) for each in (words, *image_references)):
            raise InputError(
                f"scores compare lists of words, but image {i} has a string; split it into words"
            )


_split_words = lru_cache(2**16)(split_words)  # the same references are scored every epoch


def split_corpus(
    captions: Mapping[Id, str], references: Mapping[Id, Sequence[str]]
) -> tuple[list[list[str]], list[list[list[str]]]]:
    """Split captions and references into words; both in the order of the captions.

    Raises InputError unless both have the same images, at least one, each with references.
    """
    uncaptioned = [id for id in references if id not in captions]
    unreferenced = [id for id in captions if id not in references]
    for ids, problem in ((uncaptioned, "have no caption"), (unreferenced, "have no references")):
        if ids:
            listed = ", ".join(map(repr, ids[:10])) + (", ..." if len(ids) > 10 else "")
            raise InputError(f"{len(ids)} of the images to score {problem}: {listed}")
    for id, sentences in references.items():
        if isinstance(sentences, str):
            raise InputError(f"the references of image {id!r} must be a list, got a string")
    hypotheses = [_split_words(captions[id]) for id in captions]
    split_references = [[_split_words(text) for text in references[id]] for id in captions]
    _check_corpus(hypotheses, split_references)
    return hypotheses, split_references


def signature(references: Iterable[Sized], scores: Iterable[str] | None = None) -> str:
    """Describe how scores were computed in one line, to be printed with them.

    references: of each image; only their number matters. scores: names; None for those that need
    no Java. Raises InputError if there are no references.
    """
    counts = {len(image_references) for image_references in references}
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
