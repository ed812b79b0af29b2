"""CLIPScore and RefCLIPScore from embeddings; `Linker` computes the embeddings.

Hessel et al. 2021. Shapes: N images, E dimensions, R references.
"""

import numpy as np

WEIGHT = 2.5  # section 3 of the paper
PROMPT = "A photo depicts "  # before each text


def clip_score(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """Return 100 * 2.5 * max(cos, 0) of each image with its caption (N,).

    images, captions (N, E): unit rows; the captions were embedded with PROMPT before them. The row
    of an empty caption is 0, and so is its score.
    """
    cosines = np.einsum("ne,ne->n", images.astype(np.float64), captions.astype(np.float64))
    scores: np.ndarray = 100 * WEIGHT * cosines.clip(0)
    return scores


def ref_clip_score(
    scores: np.ndarray, captions: np.ndarray, references: np.ndarray, image_of: np.ndarray
) -> np.ndarray:
    """Return the harmonic mean (N,) of CLIPScore and 100 * the best cosine with a reference.

    scores (N,): the result of `clip_score`. captions (N, E), references (R, E): unit rows.
    image_of (R,): the index of each reference's image.
    """
    cosines = np.einsum("re,re->r", references.astype(np.float64), captions[image_of])
    best = np.zeros(len(scores))
    np.maximum.at(best, image_of, 100 * cosines.clip(0))
    total = scores + best
    return np.divide(2 * scores * best, total, out=np.zeros_like(total), where=total > 0)
