"""Labels of uploaded images, and where in an image they are, as JSON.

Shapes: L labels, (h, w) grid.
"""

from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..errors import InputError
from ..linker import Linker
from ..models.linking.text_model import suggest_words
from ..regions import spatial

SUGGESTED = 8  # unknown words for which similar ones are sought, which takes a while for each


def label_image(
    linker: Linker, image: Image.Image, labels: Sequence[str], limit: int
) -> dict[str, Any]:
    """Return the `limit` labels that an image is most likely to show, with their probabilities.

    labels: words, phrases or sentences; if there are none, the labels of the training data. Raises
    InputError for unknown words, and for a model that is not spatial. `spatial_schemas` describes
    the keys.
    """
    spatial(linker.model)
    names = list(dict.fromkeys(labels or linker.known_labels.names))
    check_words(linker, names)
    scores = linker.labels(image, names)[0]
    best = (-scores).argsort(kind="stable")[:limit]
    return {"labels": [{"label": names[i], "score": round(float(scores[i]), 4)} for i in best]}


def localize_labels(linker: Linker, image: Image.Image, labels: Sequence[str]) -> dict[str, Any]:
    """Return the probabilities of labels, and the maps (h, w) of where in an image they are.

    Arguments and errors are as in `label_image`, but at least one label is required.
    """
    encoder = spatial(linker.model).encoder
    names = list(dict.fromkeys(labels))
    check_words(linker, names)
    scores, maps = linker.labels(image, names)[0], linker.label_maps(image, names)[0]
    return {
        "offset": encoder.offset,
        "labels": [
            {"label": name, "score": round(float(score), 4), "map": values.round(4).tolist()}
            for name, score, values in zip(names, scores, maps.astype(float), strict=True)
        ],
    }


def check_words(linker: Linker, texts: Sequence[str]) -> None:
    """Raise InputError with similar known words if the linker does not know all words of texts."""
    words = dict.fromkeys(word for text in texts for word in linker.texts.unknown_words(text))
    if words:
        unknown = suggest_words(linker.texts.words, list(words)[:SUGGESTED])
        more = f" and {len(words) - SUGGESTED} more" if len(words) > SUGGESTED else ""
        raise InputError(f"unknown words: {unknown}{more}; replace them")
