"""Vectors of uploaded images as text for URLs; each is valid for one linking model.

Shapes: E dimensions.
"""

import base64
from typing import Any

import numpy as np

from ..errors import InputError
from ..linker import Linker
from ..retrieval.query import Query, Term, weighted_sum

WEIGHT_DIGITS = 8  # of the hash of a model's weights that begin each vector


def embed_upload(linker: Linker, image: Any, weights: str) -> np.ndarray:
    """Return the unit vector (E,) of an uploaded image, rounded as by `write_vector`.

    image, weights: as in `Linker.encode_images` and `write_vector`.
    """
    return read_vector(write_vector(linker.encode_images(image)[0], weights), weights)


def write_vector(vector: np.ndarray, weights: str) -> str:
    """Write a vector (E,) as text for URLs: the first digits of `weights`, a dot, and base64.

    weights: hexadecimal SHA-256 of the weights of the model that embedded the image. The base64
    encodes half-precision values and is not padded.
    """
    content = vector.astype("<f2").tobytes()
    encoded = base64.urlsafe_b64encode(content).decode().rstrip("=")
    return f"{weights[:WEIGHT_DIGITS]}.{encoded}"


def read_vector(text: str, weights: str) -> np.ndarray:
    """Return the unit vector (E,) that `write_vector` wrote for the same `weights`.

    Raises InputError if the text is malformed, if the vector is from another model, or if it is
    zero or not finite.
    """
    digits, _, encoded = text.partition(".")
    try:
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
        vector = np.frombuffer(content, "<f2").astype(np.float32)
        unit = weighted_sum(vector[None], Query((Term("image", is_image=True),)))
    except (ValueError, InputError) as error:
        raise InputError(
            "image must be the value of 'image' in an earlier response; send the image file instead"
        ) from error
    if digits != weights[:WEIGHT_DIGITS]:
        raise InputError(
            "image is a vector of a model other than the index's; send the image file instead"
        )
    return unit
