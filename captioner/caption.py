"""Caption: a sentence about an image, and where the model looked; no model is known here.

`T` words, `h`, `w` grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .data.images import ImageInput, load_image
from .decoding.hypothesis import Hypothesis
from .errors import InputError
from .plots import heatmaps
from .plots.html import caption_html
from .text.tokenizer import join_words
from .text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Caption:
    """A sentence about an image.

    words: T of them. log_probs: one per word, in nats, then the end token's, which is missing
    where max_length cut the caption. score: their sum. attention (T, h, w): for each word where
    the model looked, rows from the top, each map summing to 1; None for a model without.
    alternatives: the rest of the n-best list, best first. image: what was captioned. offset: how
    far the middle of what a cell of the maps sees lies from its own, in cells; see `Encoder`.
    word_alternatives: for each word the likeliest others in its place and their log-probabilities,
    given the image and the words before, likeliest first, "" being the end; as many as the option
    of that name asks for, so empty without it.
    """

    text: str
    words: tuple[str, ...]
    score: float
    log_probs: tuple[float, ...]
    attention: np.ndarray | None = field(repr=False)
    alternatives: "tuple[Caption, ...]" = field(repr=False)
    image: ImageInput = field(repr=False)
    offset: float = field(default=0.0, repr=False)
    word_alternatives: tuple[tuple[tuple[str, float], ...], ...] = field(default=(), repr=False)

    def save_heatmap(self, path: str | Path) -> None:
        """Write where the model looked at each word, as the ending of the path has it.

        A figure (.png, .jpg, .tiff, .pdf, .svg) has a panel, an animation (.gif, .webp) a frame
        for each word; .npy holds the bare maps, and the .json beside it the words. Raises
        InputError for a model without attention.
        """
        if self.attention is None:
            raise InputError("this model has no attention; train with --attention for heatmaps")
        heatmaps.save_heatmap(
            path,
            load_image(self.image),
            self.words,
            self.attention,
            title=self.text,
            offset=self.offset,
        )

    def _repr_html_(self) -> str:
        """What notebooks show: the image, and a word's map where the word is pointed at."""
        image = load_image(self.image)
        return caption_html(image, self.words, self.log_probs, self.attention, self.offset)


def caption_of(
    hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary, image: ImageInput, offset: float
) -> Caption:
    """What search found for an image, best first: the first in words, with the rest beside it."""
    best, *others = hypotheses
    words = tuple(vocabulary.decode(best.tokens))
    instead = (
        tuple(("".join(vocabulary.decode([token])), p) for token, p in each)
        for each in best.alternatives[: len(words)]
    )
    return Caption(
        join_words(words),
        words,
        best.score,
        best.log_probs,
        None if best.attention is None else best.attention[: len(words)],
        tuple(caption_of([other], vocabulary, image, offset) for other in others),
        image,
        offset,
        tuple(instead),
    )
