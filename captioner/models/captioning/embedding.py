"""Word embeddings that are also the weights of the output layer.

Shapes: N words, R rows, V vocabulary, E embedding size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...products import product
from ..losses import Targets, caption_cross_entropy


class TiedEmbedding(nn.Module):
    """Embeddings of a vocabulary that are also the weights of the output layer.

    See Press and Wolf 2017. weight (V, E), bias (V,).
    """

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, embedding_size))
        nn.init.normal_(self.weight, std=embedding_size**-0.5)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the embeddings (..., E) of tokens (...)."""
        return F.embedding(tokens, self.weight)

    def scores(self, output: Tensor) -> Tensor:
        """Compute raw scores (R, V) of the next word from outputs (R, E)."""
        return product(output, self.weight, self.bias)

    def cross_entropy(self, output: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy of outputs (N, E); see `caption_cross_entropy`."""
        return caption_cross_entropy(output, self.weight, self.bias, targets)


def scale_embeddings(embeddings: Tensor) -> Tensor:
    """Multiply embeddings (..., E) by sqrt(E), to give them about unit variance at initialisation.

    Because embeddings are also the output weights, they are initialised with variance 1 / E;
    without the factor, the word inputs would be negligible compared to the hidden state. See
    Vaswani et al. 2017, section 3.4.
    """
    return embeddings * float(embeddings.shape[-1] ** 0.5)
