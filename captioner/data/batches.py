"""Training batches: caption encoding, epoch order and collation.

Shapes: B images, C captions per image, T predicted tokens, D channels, (h, w) grid, S image side
length, L teacher tokens per position.
"""

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from ..text.vocabulary import Vocabulary
from .dataset import Example
from .sources import Source

MAX_WORDS = 50  # longer captions are truncated: one of 10,000 words could exhaust memory
CHUNK = 50  # images are sorted by caption length within this many batches

Group = TypeVar("Group", bound="Batch | Distillation | Rollouts")


@dataclass(frozen=True)
class Distillation:
    """A teacher's predictions for the captions of a batch.

    tokens, probs (B, C, T, L): the teacher's most likely tokens at each position and their
    probabilities, which sum to 1. weight: weight of the teacher in the target, in [0, 1].
    """

    tokens: Tensor
    probs: Tensor
    weight: float


@dataclass(frozen=True)
class Rollouts:
    """Which captions of a batch were sampled from the model, and the weight of each caption.

    weights (B, C): factor for each caption's log-likelihood. sampled (B, C): whether a caption was
    sampled from the model instead of being a reference.
    """

    weights: Tensor
    sampled: Tensor


@dataclass(frozen=True)
class Batch:
    """Images and all their captions.

    ids: image ids.
    tokens (B, C, 1 + T): start token, words, end token, padding (0). The captions of an image are
        sorted from longest to shortest; missing captions are all padding.
    images (B, 3, S, S), features (B, D, h, w): exactly one of the two is set; the other is None.
    distillation: set only for distillation. rollouts: set only in self-critical training.
    sampling_prob: probability of replacing an input word with the model's own prediction (scheduled
        sampling).
    """

    ids: tuple[int | str, ...]
    tokens: Tensor
    images: Tensor | None = None
    features: Tensor | None = None
    distillation: Distillation | None = None
    rollouts: Rollouts | None = None
    sampling_prob: float = 0.0

    def features_by(self, encoder: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the feature maps (B, D, h, w) in float32, encoding images with `encoder`."""
        if self.features is not None:
            return self.features.float()
        assert self.images is not None
        return encoder(self.images)

    def to(self, device: torch.device) -> "Batch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return _map_tensors(self, change)


def _map_tensors(values: Group, change: Callable[[Tensor], Tensor]) -> Group:
    """Return a copy of a dataclass with `change` applied to every tensor, including nested ones."""
    changed: dict[str, Any] = {}
    for name, value in vars(values).items():
        if isinstance(value, Tensor):
            changed[name] = change(value)
        elif isinstance(value, Distillation | Rollouts):
            changed[name] = _map_tensors(value, change)
    return replace(values, **changed)


def make_batch(
    source: Source, indices: Sequence[int], ids: Sequence[int | str], tokens: Tensor
) -> Batch:
    """Load the images or features at `indices` and combine them with captions into a Batch.

    ids: image ids, one per index. tokens (B, C, 1 + T): the captions, as in Batch.
    """
    values = source.load(indices)
    return Batch(
        tuple(ids),
        tokens,
        images=None if source.are_features else values,
        features=values if source.are_features else None,
    )


def encode_captions(examples: Sequence[Example], vocabulary: Vocabulary) -> list[list[list[int]]]:
    """Encode each image's captions as tokens with start and end tokens, longest first.

    Captions without words are omitted; captions of more than MAX_WORDS words are truncated.
    """
    return [
        sorted(
            (
                [vocabulary.START, *vocabulary.encode(words[:MAX_WORDS]), vocabulary.END]
                for caption in example.captions
                if (words := vocabulary.tokenizer.split(caption))
            ),
            key=len,
            reverse=True,
        )
        for example in examples
    ]


def count_truncated(examples: Sequence[Example], vocabulary: Vocabulary) -> int:
    """Return the number of captions that `encode_captions` truncates."""
    captions = (caption for example in examples for caption in example.captions)
    return sum(
        len(vocabulary.tokenizer.split(caption)) > MAX_WORDS
        for caption in captions
        if len(caption) > MAX_WORDS  # in characters: nearly all captions need not be split
    )


def epoch_order(
    captions: Sequence[list[list[int]]],
    batch_size: int,
    seed: int,
    epoch: int,
    processes: int = 1,
    groups: Sequence[Hashable] = (),
    window: int = 0,
) -> list[list[int]]:
    """Return batches of image indices in random order, grouping captions of similar length.

    Within chunks of CHUNK batches, images are sorted by their longest caption; then the batches are
    shuffled. Every batch has at least `processes` images, so that each process gets one.
    groups: the tar file of each image, or empty if the images are not in tar files. If groups are
    given, their order is shuffled, but images and batches are shuffled only within chunks of about
    `window` images, so that each file needs to be read only once.
    The order depends only on the arguments. Raises InputError if there are fewer images than
    processes, or fewer images per batch than processes.
    """
    if batch_size < processes:
        raise InputError(
            f"batch_size must be at least the number of processes, {processes}, got {batch_size}"
        )
    generator = random.Random(f"{seed}/{epoch}")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups or range(len(captions))):
        members.setdefault(group, []).append(index)
    shuffled = list(members.values())
    generator.shuffle(shuffled)
    indices = [index for group in shuffled for index in group]
    chunk = max(1, window // batch_size) if groups else CHUNK  # in batches
    batches = []
    for first in range(0, len(indices), chunk * batch_size):
        part = indices[first : first + chunk * batch_size]
        if groups:
            generator.shuffle(part)
        part.sort(key=lambda i: len(captions[i][0]))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    batches = _merge_small(batches, processes)
    return _shuffle_within(batches, chunk if groups else len(batches), generator)


def _merge_small(batches: list[list[int]], minimum: int) -> list[list[int]]:
    """Merge batches of fewer than `minimum` images into the last batch that has enough.

    Raises InputError if no batch has enough images.
    """
    small = [batch for batch in batches if len(batch) < minimum]
    batches = [batch for batch in batches if len(batch) >= minimum]
    if not batches:
        count = sum(map(len, small))
        raise InputError(
            f"{minimum} processes need at least {minimum} images, got {count}; start fewer "
            "processes, or add images"
        )
    for batch in small:
        batches[-1] = batches[-1] + batch
    return batches


def _shuffle_within(
    batches: list[list[int]], chunk: int, generator: random.Random
) -> list[list[int]]:
    """Shuffle the batches within each group of `chunk` consecutive batches."""
    order = []
    for first in range(0, len(batches), chunk):
        part = batches[first : first + chunk]
        generator.shuffle(part)
        order += part
    return order
