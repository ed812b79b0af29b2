"""N-grams of token sequences, each encoded as one integer, and their counts.

Shapes: T tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

ORDERS = (1, 2, 3, 4)


def ngram_ids(tokens: Tensor, n: int, base: int) -> Tensor:
    """Encode the n-gram that starts at each position of `tokens` (..., T) as an integer.

    The tokens are the digits of the integer in base `base`, so they must be below `base`. The
    padding token is 0, and so is the integer of an n-gram that ends in padding or extends past the
    last token. If base ** n exceeds 2 ** 63, different n-grams can collide, but this is very
    unlikely.
    """
    windows = F.pad(tokens, (0, n - 1)).unfold(-1, n, 1)  # (..., T, n)
    powers = torch.tensor([base**i for i in reversed(range(n))], device=tokens.device)
    return (windows * powers).sum(-1).masked_fill(windows[..., -1] == 0, 0)


def ngram_counts(ids: Tensor, among: Tensor) -> Tensor:
    """Count how often each of `ids` (..., T) occurs in `among` (..., T')."""
    return (ids[..., :, None] == among[..., None, :]).sum(-1)
