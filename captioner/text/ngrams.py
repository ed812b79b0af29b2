"""N-grams of captions as tokens, each as one number, and how often they occur.

What likenesses are made of them, metrics/cider_d.py and search/consensus.py know. Shapes: T words.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ORDERS = (1, 2, 3, 4)


def ngram_ids(tokens: Tensor, n: int, base: int) -> Tensor:
    """The n-gram that begins at each place of (..., T), as a number; 0 where there is none.

    Its tokens, each below base, are the digits; padding is 0. Where base ** n is above 2 ** 63,
    two n-grams may, though hardly ever, have one number.
    """
    windows = F.pad(tokens, (0, n - 1)).unfold(-1, n, 1)  # (..., T, n)
    powers = torch.tensor([base**i for i in reversed(range(n))], device=tokens.device)
    return (windows * powers).sum(-1).masked_fill(windows[..., -1] == 0, 0)


def ngram_counts(places: Tensor, among: Tensor) -> Tensor:
    """How often the n-gram of each place (..., T) is among those of (..., T')."""
    return (places[..., :, None] == among[..., None, :]).sum(-1)
