"""A caption's words, scores and attention maps, with export to JSON and figures.

Shapes: T words, (h, w) attention grid.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .data.images import ImageInput, load_image
from .decoding.hypothesis import Hypothesis
from .errors import InputError
from .plots import heatmaps
from .plots.html import caption_html
from .plots.overlays import is_dimmed
from .text.vocabulary import Vocabulary

_DIGITS = 4  # decimal places of numbers in JSON


@dataclass(frozen=True)
class Caption:
    """The caption of an image.

    text: the caption. words: its T words. score: sum of `log_probs`. log_probs: log-probability of
    each word, then of the end token, in nats; a caption truncated at max_length has no end token.
    attention: attention maps (T, h, w), one per word, rows from the top, each summing to 1; None
    for a model without attention. alternatives: the rest of the n-best list, best first. image:
    the image as it was passed. offset: distance from the centre of a map cell to the centre of its
    receptive field, down and to the right, in cells; see `Encoder`. word_alternatives: for each
    word, the most likely alternatives and their log-probabilities in nats, given the image and the
    previous words, most likely first; "" represents the end of the caption. The field is empty
    unless the option word_alternatives is set.
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

    @property
    def picture(self) -> ImageInput:
        """Deprecated alias of `image`."""
        warnings.warn(
            "Caption.picture is deprecated; use Caption.image", DeprecationWarning, stacklevel=2
        )
        return self.image

    def to_dict(self, *, attention: bool = False, dimmed: bool = False) -> dict[str, Any]:
        """Convert the caption to the dict that `captioner caption` and `serve` write as JSON.

        caption: the text; data sets use the same key, so that records with an image can be read as
        a data set. score, words, log_probs: the fields; numbers are rounded to 4 decimal places.
        word_alternatives: for each word, a list of {"word", "log_prob"}. alternatives: a list of
        captions in this form. The last two are omitted if they are empty.

        attention=True adds the fields attention, rounded (null for a model without attention), and
        offset. dimmed=True adds, for each word, whether it is a function word such as "a" or "of",
        which names nothing visible. Both also apply to the alternatives.
        """
        content: dict[str, Any] = {
            "caption": self.text,
            "score": round(self.score, _DIGITS),
            "words": list(self.words),
            "log_probs": [round(log_prob, _DIGITS) for log_prob in self.log_probs],
        }
        if dimmed:
            content["dimmed"] = [is_dimmed(word) for word in self.words]
        if attention:
            maps = self.attention
            rounded = None if maps is None else maps.astype(float).round(_DIGITS).tolist()
            content |= {"attention": rounded, "offset": self.offset}
        if self.word_alternatives:
            content["word_alternatives"] = [
                [{"word": word, "log_prob": round(log_prob, _DIGITS)} for word, log_prob in others]
                for others in self.word_alternatives
            ]
        if self.alternatives:
            content["alternatives"] = [
                caption.to_dict(attention=attention, dimmed=dimmed) for caption in self.alternatives
            ]
        return content

    def save_heatmap(self, path: str | Path) -> None:
        """Save the attention map of each word in the format given by the extension of `path`.

        A figure (.png, .jpg, .tiff, .pdf, .svg) has one panel per word; an animation (.gif, .webp)
        has one frame per word. A .npy file contains only the maps; the words are written to a
        .json file next to it. Raises InputError for a model without attention, a caption without
        words, an unknown extension, an image that cannot be read, and a file that cannot be
        written.
        """
        if self.attention is None:
            raise InputError(
                "heatmaps cannot be drawn: this model has no attention; train one with --attention"
            )
        heatmaps.save_heatmap(
            path,
            load_image(self.image),
            self.words,
            self.attention,
            title=self.text,
            offset=self.offset,
        )

    def _repr_html_(self) -> str:
        """Return the image and its caption as HTML; hovering over a word shows its map, if any."""
        image = load_image(self.image)
        return caption_html(image, self.words, self.log_probs, self.attention, self.offset)


def caption_of(
    hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary, image: ImageInput, offset: float
) -> Caption:
    """Build the Caption of an image from its hypotheses, which are sorted best first."""
    best, *others = hypotheses
    words = tuple(vocabulary.decode(best.tokens))
    word_alternatives = (
        tuple(("".join(vocabulary.decode([token])), log_prob) for token, log_prob in alternatives)
        for alternatives in best.alternatives[: len(words)]
    )
    return Caption(
        text=vocabulary.tokenizer.join(words),
        words=words,
        score=best.score,
        log_probs=best.log_probs,
        attention=None if best.attention is None else best.attention[: len(words)],
        alternatives=tuple(caption_of([other], vocabulary, image, offset) for other in others),
        image=image,
        offset=offset,
        word_alternatives=tuple(word_alternatives),
    )
