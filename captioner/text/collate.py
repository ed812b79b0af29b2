"""Collation of tokenised captions into padded tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .vocabulary import PAD


def pad_captions(captions: Sequence[list[list[int]]]) -> Tensor:
    """Pad each image's captions at the end with PAD; return tokens (B, C, 1 + T).

    C is the maximum number of captions per image; 1 + T is the length of the longest caption.
    """
    count = max(len(image) for image in captions)
    length = max(len(caption) for image in captions for caption in image)
    tokens = torch.full((len(captions), count, length), PAD)
    for b, image in enumerate(captions):
        for c, caption in enumerate(image):
            tokens[b, c, : len(caption)] = torch.tensor(caption)
    return tokens
