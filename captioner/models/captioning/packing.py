"""The words of a batch of captions without padding, in the order in which training reads them.

Shapes: B images, C captions per image, T words, N real words (no padding), n captions with a word
at a step, K captions per image at a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...text.vocabulary import PAD


@dataclass(frozen=True)
class Step:
    """The captions with a word at one step.

    images: B. per_image: K, the maximum over the images of the number of these captions. slots
    (n,): index of each caption in the flattened (B * K).
    """

    images: int
    per_image: int
    slots: Tensor

    def by_image(self, rows: Tensor) -> Tensor:
        """Return rows (n, ...) as (B, K, ...), with zeros for images with fewer captions."""
        values = rows.new_zeros(self.images * self.per_image, *rows.shape[1:])
        values = values.index_copy(0, self.slots, rows)
        return torch.unflatten(values, 0, (self.images, self.per_image))

    def rows_of(self, values: Tensor) -> Tensor:
        """Return values (B, K, ...) as rows (n, ...)."""
        return values.flatten(0, 1).index_select(0, self.slots)


class PackedCaptions:
    """The order of the words in training: all first words, then all second words, and so on.

    At each step, the captions are ordered from longest to shortest, so that a step's captions are
    the first ones of the step before.

    tokens (B, C, 1 + T): as in `data.batches.Batch`. order (B * C,): index of each caption in the
    flattened (B, C). words (N,): index of each real word in the flattened (B, C, T). counts: the
    number n of captions of each step.
    """

    def __init__(self, tokens: Tensor) -> None:
        real = tokens[..., 1:] != PAD
        self.images, self.captions, steps = real.shape
        self.order = real.sum(-1).flatten().argsort(descending=True, stable=True)
        # The captions of an image are sorted, so the first K of each image include all of a step.
        sizes = torch.stack([real.sum((0, 1)), real.any(0).sum(0)]).tolist()
        self.counts, self.per_image = ([size for size in row if size] for row in sizes)
        starts = self.order * steps
        self.words = torch.cat([starts[:n] + t for t, n in enumerate(self.counts)])

    def pick(self, values: Tensor) -> Tensor:
        """Return values (B, C, T, ...) as one row per real word (N, ...)."""
        return values.flatten(0, 2).index_select(0, self.words)

    def unpack(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return rows (N,) as values (B, C, T), with 0 for padding; like: any tensor (B, C, T)."""
        return rows.new_zeros(like.numel()).index_copy(0, self.words, rows).view_as(like)

    def steps(self) -> Iterator[Step]:
        for n, per_image in zip(self.counts, self.per_image, strict=True):
            captions = self.order[:n]
            image = captions // self.captions
            slots = captions - image * (self.captions - per_image)
            yield Step(self.images, per_image, slots)
