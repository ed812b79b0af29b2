"""N-grams of token sequences, each coded as one number, and their counts.

Shapes: T tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ORDERS = (1, 2, 3, 4)


def ngram_ids(tokens: Tensor, n: int, base: int) -> Tensor:
    """A number for the n-gram that begins at each position of (..., T); 0 if it exceeds the text.

    The number has the tokens, each below `base`, as digits; the padding token is 0. If base ** n
    exceeds 2 ** 63, different n-grams can collide, which is very unlikely.
    """
    windows = F.pad(tokens, (0, n - 1)).unfold(-1, n, 1)  # (..., T, n)
    powers = torch.tensor([base**i for i in reversed(range(n))], device=tokens.device)
    return (windows * powers).sum(-1).masked_fill(windows[..., -1] == 0, 0)


def ngram_counts(ids: Tensor, among: Tensor) -> Tensor:
    """For each id (..., T), how often it occurs among the ids (..., T')."""
    return (ids[..., :, None] == among[..., None, :]).sum(-1)
