"""The page of search failures: irrelevant images with a high rank, and words that explain them."""

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
    """Write an HTML page of the irrelevant images among the first K of each query.

    Each image is shown with its first caption, and with words of its captions that often occur
    together with the query's words in the captions of training images, or of all images if there
    is no train split, each with its lift. Queries without an irrelevant image among the first K are
    omitted. examples: those of the searched images. Raises InputError if the file cannot be
    written.
    """
    training = [e for e in data.examples if e.split == "train"]
    counted = "training images" if training else "images"
    words = Cooccurrence([_words(example) for example in training or data.examples])
    failed = [_failed(query, examples, words) for query in scores.queries]
    failed = [each for each in failed if each.failures]
    note = (
        f"This page shows the irrelevant images among the first {K} of each query, for "
        f"{len(failed)} of {len(scores.queries)} queries; the other queries have none. Below an "
        "image are words of its captions. The number after a word is its lift: a lift of 2 means "
        f"that the word is twice as frequent in the captions of those {counted} whose captions "
        f"contain the words of the query as in the captions of all {counted}."
    )
    page = failures_page(f"Irrelevant results on {data.name}", note, failed)
    try:
        atomic_write(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; choose another --failures"
        ) from error


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
    """Return the words of an image's captions with a lift of at least MIN_LIFT, highest first.

    lifts: sorted from high to low. At most WORDS words are returned, each with its lift.
    """
    found = _words(example)
    return [(w, lift) for w, lift in lifts.items() if w in found and lift >= MIN_LIFT][:WORDS]


def _words(example: Example) -> set[str]:
    return {word for text in example.captions for word in plain_words(text)}


def _image(example: Example) -> Image.Image | None:
    try:
        return load_image(example.path)
    except InputError:
        return None
