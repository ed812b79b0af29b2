"""Words in and out of a model: embeddings that are also the output layer; nothing else of models.

Shapes: B images, C captions per image, V vocabulary, E embedding, R rows, N real words of a
batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.batches import Batch
from ..losses import caption_cross_entropy


class TiedEmbedding(nn.Module):
    """A vocabulary's embeddings, which are also the weights of the output layer.

    Press and Wolf 2017. weight (V, E), bias (V,).
    """

    def __init__(self, size: int, embedding_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, embedding_size))
        nn.init.normal_(self.weight, std=embedding_size**-0.5)
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings (..., E) of tokens (...)."""
        return F.embedding(tokens, self.weight)

    def scores(self, output: Tensor) -> Tensor:
        """Raw scores (R, V) of the words after an output (R, E)."""
        return F.linear(output, self.weight, self.bias)

    def cross_entropy(
        self,
        output: Tensor,
        targets: Tensor,
        batch: Batch,
        of_words: Callable[[Tensor], Tensor],
        label_smoothing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the words (N,) after an output (N, E): the smoothed or weighted sum, which trains; the
        plain one of each reference word; the plain one of each word, sampled ones, too.

        of_words: from what there is of each word in its place (B, C, T, ...) to the same of the
        real ones (N, ...). In a weighted batch nothing is smoothed, as a weight below 0 would drive
        the rest of the vocabulary without bound. In a taught one the reference's share is
        smoothed, the teacher's is not.
        """
        layer = self.weight, self.bias
        if batch.teacher_tokens is not None and batch.teacher_probs is not None:
            own, likely = (
                1 - batch.distill_weight,
                batch.distill_weight * of_words(batch.teacher_probs),
            )
            true = likely.new_full((len(targets), 1), own * (1 - label_smoothing))
            words = torch.cat([targets[:, None], of_words(batch.teacher_tokens)], dim=1)
            shares = torch.cat([true, likely], dim=1)
            smoothed, each = caption_cross_entropy(
                output, *layer, words, own * label_smoothing, shares=shares
            )
            return smoothed, each, each
        if batch.weights is None or batch.sampled is None:
            smoothed, each = caption_cross_entropy(output, *layer, targets, label_smoothing)
            return smoothed, each, each
        weights, sampled = (
            of_words(part[..., None].expand_as(batch.tokens[..., 1:]))
            for part in (batch.weights, batch.sampled)
        )
        weighted, each = caption_cross_entropy(output, *layer, targets, word_weights=weights)
        return weighted, each[~sampled], each


def scale_words(words: Tensor) -> Tensor:
    """Embeddings (..., E) as the LSTM takes them, of about unit variance where training starts.

    As output weights they are shorter by sqrt(E); without the factor the LSTM would hardly hear
    the words at first. Vaswani et al. 2017, section 3.4.
    """
    return words * words.shape[-1] ** 0.5
