"""From Examples to batches: captions as tokens, the order of an epoch, collation.

No file formats and no models. Shapes: B images, C captions per image, T words, D channels,
h, w grid, S image side, L words that a teacher holds likely.
"""

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..text.tokenizer import split_words
from ..text.vocabulary import Vocabulary
from .dataset import Example

MAX_WORDS = 50  # longer captions are cut: one caption of 10,000 words must not fill the memory


@dataclass(frozen=True)
class Batch:
    """Images with all their captions.

    ids: one per image. images (B, 3, S, S) or features (B, D, h, w): one of the two.
    tokens (B, C, 1 + T): start, words, end, then padding (0); each image's captions longest
    first, missing ones all padding. columns: for each of the T predicted words, how many
    captions of some image reach that far. weights (B, C): of each caption's log-likelihood,
    None for all 1; then sampled (B, C) says which captions are the model's own, not references.
    taught_words, taught_shares (B, C, T, L): the words that a teacher holds likeliest in the place
    of each, and how likely, which sums to 1; teaching: how much of the target that is.
    own_words: share of the words that a model takes from itself instead, as what came before the
    next. parts: named scalars to be told beside the loss. waited: the seconds for which nothing
    was computed, since the batch was not loaded yet.
    """

    ids: tuple[int | str, ...]
    tokens: Tensor
    active_captions: tuple[int, ...]
    images: Tensor | None = None
    features: Tensor | None = None
    weights: Tensor | None = None
    sampled: Tensor | None = None
    teacher_tokens: Tensor | None = None
    teacher_probs: Tensor | None = None
    distill_weight: float = 0.0
    sampling_prob: float = 0.0
    waited: float = 0.0
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    def features_by(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        """The feature maps (B, D, h, w), by the encoder where the batch holds images."""
        if self.features is not None:
            return self.features.float()
        assert self.images is not None
        return encoder(self.images)

    def to(self, device: torch.device) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        parts = {name: change(value) for name, value in self.parts.items()}
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, parts=parts, **tensors)


@dataclass(frozen=True)
class Source:
    """Where the pixels or features of a list of examples come from.

    load: indices -> (B, 3, S, S) images, or (B, D, h, w) features where `are_features`.
    tars, window: the tar file that each is read from, none for other files, and how many are
    shuffled among each other, as `epoch_order` takes them.
    """

    load: Callable[[Sequence[int]], Tensor]
    are_features: bool
    tars: Sequence[Path] = ()
    window: int = 0

    def batch(self, indices: Sequence[int], ids: Sequence[int | str], tokens: Tensor) -> Batch:
        values = self.load(indices)
        return Batch(
            tuple(ids),
            tokens,
            count_active_captions(tokens),
            images=None if self.are_features else values,
            features=values if self.are_features else None,
        )


def count_active_captions(tokens: Tensor) -> tuple[int, ...]:
    """The `columns` of a Batch of these tokens (B, C, 1 + T), each image's longest first."""
    lengths = (tokens[:, :, 1:] != Vocabulary.PAD).sum(-1)  # (B, C)
    steps = torch.arange(tokens.shape[-1] - 1, device=tokens.device)
    active_captions = (lengths[..., None] > steps).sum(1).amax(0) if len(steps) else steps
    return tuple(active_captions.tolist())


def encode_captions(examples: Sequence[Example], vocabulary: Vocabulary) -> list[list[list[int]]]:
    """Per image its captions as tokens from start to end, longest first."""
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


def epoch_order(
    captions: Sequence[list[list[int]]],
    batch_size: int,
    seed: int,
    epoch: int,
    processes: int = 1,
    tars: Sequence[Hashable] = (),
    window: int = 0,
) -> list[list[int]]:
    """Random batches of image indices, images of like caption length together.

    Within chunks of 50 batches, images are sorted by their longest caption; then the batches
    are shuffled. No batch has fewer than `processes` images, so that each has its share.
    tars: the tar file of each image, to be read from its beginning to its end and once: then
    these are shuffled, and images and batches only within chunks of about `window` images.
    Depends on nothing but its arguments.
    """
    generator = random.Random(f"{seed}/{epoch}")
    groups: dict[Hashable, list[int]] = {}
    for index, tar in enumerate(tars or range(len(captions))):
        groups.setdefault(tar, []).append(index)
    shuffled = list(groups.values())
    generator.shuffle(shuffled)
    indices = [index for group in shuffled for index in group]
    each = max(1, window // batch_size) if tars else 50  # batches of a chunk
    batches = []
    for first in range(0, len(indices), each * batch_size):
        part = indices[first : first + each * batch_size]
        if tars:
            generator.shuffle(part)
        part.sort(key=lambda i: len(captions[i][0]))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    batches = _none_small(batches, processes)
    return _shuffled_within(batches, each if tars else len(batches), generator)


def _none_small(batches: list[list[int]], least: int) -> list[list[int]]:
    """The batches, those of fewer images than `least` joined to the last that is left."""
    small = [batch for batch in batches if len(batch) < least]
    batches = [batch for batch in batches if len(batch) >= least]
    if not batches:
        raise InputError(f"{sum(map(len, small))} images are too few for {least} processes")
    for batch in small:
        batches[-1] = batches[-1] + batch
    return batches


def _shuffled_within(
    batches: list[list[int]], chunk: int, generator: random.Random
) -> list[list[int]]:
    whole = []
    for first in range(0, len(batches), chunk):
        part = batches[first : first + chunk]
        generator.shuffle(part)
        whole += part
    return whole
