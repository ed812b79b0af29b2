"""The page of a run: images with their best captions, and captions with their best images."""

from pathlib import Path

import numpy as np

from ...atomic_io import atomic_write
from ...data.dataset import Example
from ...data.images import load_image
from ...errors import InputError
from ...plots.matches import CaptionMatches, ImageMatches, Picture, matches_page
from ...text.tokenizer import split_words
from .vectors import RetrievalResult, image_of_caption

QUERIES, ANSWERS = 6, 5  # of each kind on the page; answers per query


def write_matches(path: Path, examples: list[Example], result: RetrievalResult) -> None:
    """Write the page of evenly spaced images and captions of a split with their best matches.

    result: contains the scores (I, N) of the split's images and captions. A caption is marked as an
    image's own if it has the same words as one of the image's captions.
    """
    scores, owners = result.scores, image_of_caption(examples)
    texts = [text for example in examples for text in example.captions]
    own_words = [{tuple(split_words(text)) for text in example.captions} for example in examples]

    def is_own(image: int, text: int) -> bool:
        return tuple(split_words(texts[text])) in own_words[image]

    pictures: dict[int, Picture] = {}

    def picture(image: int) -> Picture:
        if image not in pictures:
            pictures[image] = _load(examples[image])
        return pictures[image]

    chosen = _evenly_spaced(np.unique(owners))
    images = [
        ImageMatches(
            picture(i), [(texts[n], float(scores[i, n]), is_own(i, n)) for n in _best(scores[i])]
        )
        for i in chosen
    ]
    captions = [
        CaptionMatches(
            texts[n],
            [(picture(i), float(scores[i, n]), is_own(i, n)) for i in _best(scores[:, n])],
        )
        for n in (int(np.flatnonzero(owners == i)[0]) for i in chosen)
    ]
    title = f"{path.parent.name}: images and captions"
    atomic_write(path, matches_page(title, result.describe(), images, captions))


def _best(scores: np.ndarray) -> list[int]:
    """Return the positions of the ANSWERS highest scores, best first; ties in order."""
    best: list[int] = np.argsort(-scores, kind="stable")[:ANSWERS].tolist()
    return best


def _evenly_spaced(images: np.ndarray) -> list[int]:
    chosen: list[int] = images[:: max(1, len(images) // QUERIES)][:QUERIES].tolist()
    return chosen


def _load(example: Example) -> Picture:
    """Load an image for the page; if it cannot be read, only its name is shown.

    A run on image vectors does not need the images.
    """
    try:
        return Picture(example.path.name, load_image(example.path))
    except InputError:
        return Picture(example.path.name, None)
