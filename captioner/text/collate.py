"""Captions as token lists to padded tensors; what the tokens stand for is text.py's."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .vocabulary import PAD


def pad_captions(captions: Sequence[list[list[int]]]) -> Tensor:
    """Tokens (B, C, 1 + T) of each image's captions, padded at the end with 0."""
    most = max(len(texts) for texts in captions)
    longest = max(len(text) for texts in captions for text in texts)
    tokens = torch.full((len(captions), most, longest), PAD)
    for b, texts in enumerate(captions):
        for c, text in enumerate(texts):
            tokens[b, c, : len(text)] = torch.tensor(text)
    return tokens
