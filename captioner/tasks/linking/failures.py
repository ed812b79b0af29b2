"""The page of wrong search results: which images come first without being right, and why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ...atomic_io import atomic_write
from ...data.dataset import CaptionData, Example
from ...data.images import load_image
from ...errors import InputError
from ...metrics.ranking import K
from ...plots.failures import FailedQuery, Failure, failures_page
from ...retrieval.query import parse
from ...retrieval.query_sets import spellings, wanted
from ...text.cooccurrence import Cooccurrence
from ...text.tokenizer import plain_words
from .queries import QueryScores, ScoredQuery

WORDS, MIN_LIFT = 5, 2.0  # words per wrong image, and the lowest lift among them


def write_failures(
    path: Path, scores: QueryScores, examples: Sequence[Example], data: CaptionData
) -> None:
    """Write an HTML page with the wrong images among the first K of each query.

    Below an image are its first caption and the words of its captions that occur beside those of
    the query in the training captions, with their lifts. Queries without a wrong image are left
    out. Raises InputError if the file cannot be written.
    """
    training = [e for e in data.examples if e.split == "train"] or list(data.examples)
    words = Cooccurrence([_words(example) for example in training])
    failed = [_failed(query, examples, words) for query in scores.queries]
    failed = [each for each in failed if each.failures]
    note = (
        f"The wrong images among the first {K} of each query: {len(failed)} of "
        f"{len(scores.queries)} queries have some. The words below an image are those of its "
        "captions that occur most often beside the words of the query in the captions of training "
        "images, as a multiple of their frequency everywhere."
    )
    page = failures_page(f"Wrong results on {data.name}", note, failed)
    try:
        atomic_write(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _failed(query: ScoredQuery, examples: Sequence[Example], words: Cooccurrence) -> FailedQuery:
    sought = wanted(parse(query.query))
    terms = [word for group in sought.with_words for word in group]
    lifts = words.lifts([spellings(word) for word in terms])
    order = np.lexsort((query.relevant, -query.scores))[:K]  # wrong images first in ties, as in P@K
    failures = [
        Failure(
            rank,
            Path(str(examples[i].path)).name,
            float(query.scores[i]),
            _image(examples[i]),
            examples[i].captions[0] if examples[i].captions else "",
            _highest(lifts, examples[i]),
        )
        for rank, i in enumerate(order.tolist(), 1)
        if not query.relevant[i]
    ]
    right = int(query.relevant[order].sum())
    return FailedQuery(query.query, right, len(order), failures)


def _highest(lifts: dict[str, float], example: Example) -> list[tuple[str, float]]:
    """Return the words of an image's captions with the highest lifts, at least MIN_LIFT."""
    found = _words(example)
    return [(w, lift) for w, lift in lifts.items() if w in found and lift >= MIN_LIFT][:WORDS]


def _words(example: Example) -> set[str]:
    return {word for text in example.captions for word in plain_words(text)}


def _image(example: Example) -> Image.Image | None:
    try:
        return load_image(example.path)
    except InputError:
        return None
