"""Collation of tokenised captions into padded tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .vocabulary import PAD


def pad_captions(captions: Sequence[list[list[int]]]) -> Tensor:
    """Tokens (B, C, 1 + T) of each image's captions, padded at the end with PAD.

    C is the largest number of captions of an image, 1 + T the length of the longest caption.
    """
    count = max(len(image) for image in captions)
    length = max(len(caption) for image in captions for caption in image)
    tokens = torch.full((len(captions), count, length), PAD)
    for b, image in enumerate(captions):
        for c, caption in enumerate(image):
            tokens[b, c, : len(caption)] = torch.tensor(caption)
    return tokens
