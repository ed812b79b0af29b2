"""The page of a run: images with their best captions, and captions with their best images."""

from pathlib import Path

import numpy as np

from ...atomic_io import atomic_write
from ...data.dataset import Example
from ...data.images import load_image
from ...errors import InputError
from ...plots.matches import CaptionMatches, ImageMatches, Picture, matches_page
from .vectors import RetrievalResult, group_equal, image_of_caption

QUERIES, ANSWERS = 6, 5  # of each kind on the page; answers per query


def write_matches(path: Path, examples: list[Example], result: RetrievalResult) -> None:
    """Write the page of evenly spaced images and captions of a split with their best matches.

    result: contains the scores (I, N) of the split's images and captions. Of captions with the same
    words, only the best is shown; it is marked as an image's own if one of the image's captions has
    these words.
    """
    scores, owners = result.scores, image_of_caption(examples)
    texts = [text for example in examples for text in example.captions]
    groups = group_equal(texts)
    own_groups = [set(groups[owners == image].tolist()) for image in range(len(examples))]

    def is_own(image: int, text: int) -> bool:
        return int(groups[text]) in own_groups[image]

    pictures: dict[int, Picture] = {}

    def picture(image: int) -> Picture:
        if image not in pictures:
            pictures[image] = _load(examples[image])
        return pictures[image]

    chosen, rows = _evenly_spaced(np.unique(owners)), np.arange(len(examples))
    images = [
        ImageMatches(
            picture(i),
            [(texts[n], float(scores[i, n]), is_own(i, n)) for n in _best(scores[i], groups)],
        )
        for i in chosen
    ]
    captions = [
        CaptionMatches(
            texts[n],
            [(picture(i), float(scores[i, n]), is_own(i, n)) for i in _best(scores[:, n], rows)],
        )
        for n in (int(np.flatnonzero(owners == i)[0]) for i in chosen)
    ]
    title = f"{path.parent.name}: images and captions"
    atomic_write(path, matches_page(title, result.describe(), images, captions))


def _best(scores: np.ndarray, groups: np.ndarray) -> list[int]:
    """Return the positions of the ANSWERS highest scores, best first; ties in order.

    groups: an integer for each score; of each group, only the highest score is returned.
    """
    order = np.argsort(-scores, kind="stable")
    _, firsts = np.unique(groups[order], return_index=True)
    best: list[int] = order[np.sort(firsts)[:ANSWERS]].tolist()
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
