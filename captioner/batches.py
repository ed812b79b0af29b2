"""From Examples to batches: captions as tokens, the order of an epoch, collation.

No file formats and no models. Shapes: B pictures, C captions per picture, T words, D channels,
h, w grid, S picture side.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .data import Example
from .errors import InputError
from .text import Vocabulary, split_words

MAX_WORDS = 50  # longer captions are cut: one caption of 10,000 words must not fill the memory


@dataclass(frozen=True)
class Batch:
    """Pictures with all their captions.

    ids: one per picture. images (B, 3, S, S) or features (B, D, h, w): one of the two.
    tokens (B, C, 1 + T): start, words, end, then padding (0); each picture's captions longest
    first, missing ones all padding. columns: for each of the T predicted words, how many
    captions of some picture reach that far.
    """

    ids: tuple[int | str, ...]
    tokens: Tensor
    columns: tuple[int, ...]
    images: Tensor | None = None
    features: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            images=None if self.images is None else self.images.to(device, non_blocking=True),
            features=None if self.features is None else self.features.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        return replace(
            self,
            tokens=self.tokens.pin_memory(),
            images=None if self.images is None else self.images.pin_memory(),
            features=None if self.features is None else self.features.pin_memory(),
        )


@dataclass(frozen=True)
class Pictures:
    """Where the pixels or features of a list of examples come from.

    load: indices -> (B, 3, S, S) images, or (B, D, h, w) features where `are_features`.
    """

    load: Callable[[Sequence[int]], Tensor]
    are_features: bool

    def batch(self, indices: Sequence[int], ids: Sequence[int | str], tokens: Tensor) -> Batch:
        pictures = self.load(indices)
        lengths = (tokens[:, :, 1:] != Vocabulary.PAD).sum(-1)  # (B, C)
        steps = torch.arange(tokens.shape[-1] - 1)
        columns = (lengths[..., None] > steps).sum(1).amax(0) if len(steps) else steps
        return Batch(
            tuple(ids),
            tokens,
            tuple(columns.tolist()),
            images=None if self.are_features else pictures,
            features=pictures if self.are_features else None,
        )


def any_view(views: Sequence[Pictures], seed: int, epoch: int) -> Pictures:
    """Each picture in one of its views, in every epoch a random one, which nothing else decides.

    views: the same pictures in the same order, seen differently.
    """

    def load(indices: Sequence[int]) -> Tensor:
        chosen = (random.Random(f"{seed}/{epoch}/{i}").choice(views) for i in indices)
        return torch.cat([view.load([i]) for view, i in zip(chosen, indices, strict=True)])

    return views[0] if len(views) == 1 else replace(views[0], load=load)


def encode_captions(examples: Sequence[Example], vocabulary: Vocabulary) -> list[list[list[int]]]:
    """Per picture its captions as tokens from start to end, longest first."""
    return [
        sorted(
            (
                [vocabulary.START, *vocabulary.encode(words[:MAX_WORDS]), vocabulary.END]
                for caption in example.captions
                if (words := split_words(caption))
            ),
            key=len,
            reverse=True,
        )
        for example in examples
    ]


def pad_captions(captions: Sequence[list[list[int]]]) -> Tensor:
    """Tokens (B, C, 1 + T), filled up with padding."""
    most = max(len(texts) for texts in captions)
    longest = max(len(text) for texts in captions for text in texts)
    tokens = torch.full((len(captions), most, longest), Vocabulary.PAD)
    for b, texts in enumerate(captions):
        for c, text in enumerate(texts):
            tokens[b, c, : len(text)] = torch.tensor(text)
    return tokens


def epoch_order(
    captions: Sequence[list[list[int]]], batch_size: int, seed: int, epoch: int, shards: int = 1
) -> list[list[int]]:
    """Random batches of picture indices, pictures of like caption length together.

    Within chunks of 50 batches, pictures are sorted by their longest caption; then the batches
    are shuffled. No batch has fewer than `shards` pictures, so that each process has its share.
    Depends on nothing but its arguments.
    """
    generator = random.Random(f"{seed}/{epoch}")
    indices = list(range(len(captions)))
    generator.shuffle(indices)
    chunk = 50 * batch_size
    batches = []
    for first in range(0, len(indices), chunk):
        part = sorted(indices[first : first + chunk], key=lambda i: len(captions[i][0]))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    small = [batch for batch in batches if len(batch) < shards]
    batches = [batch for batch in batches if len(batch) >= shards]
    if not batches:
        raise InputError(f"{len(captions)} pictures are too few for {shards} processes")
    for batch in small:
        batches[-1] = batches[-1] + batch
    generator.shuffle(batches)
    return batches
