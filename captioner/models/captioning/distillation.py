"""Distillation: soft targets from the predictions of trained models.

Shapes: B images, C captions per image, T words, L most likely tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import distributed
from ...console import progress_bar
from ...data.batches import Batch, Distillation, epoch_order, make_batch
from ...data.sources import Source
from ...decoding.options import DecodingOptions
from ...decoding.teacher_forcing import teacher_forced_log_probs
from ...devices import device_of, products_in, training_format
from ...prefetch import load_ahead
from ...products import decoding_in
from ...text.collate import pad_captions
from ..base import CaptionModel

BATCH_SIZE = 32  # number of images
DISTILL_WEIGHT = 0.9  # share of the teacher in the target; the rest goes to the caption's own word
TOP_TOKENS = 20  # per word; they hold nearly all of a trained model's probability
UNRESTRICTED = DecodingOptions(min_length=0, allow_unknown=True)


class SoftTargets(NamedTuple):
    """The teacher's most likely tokens for each word of one image's captions.

    tokens (C, T, L) int32: the tokens, most likely first. probs (C, T, L) float16: their
    probabilities, normalised to sum to 1. With L = TOP_TOKENS, they take 120 bytes per word.
    """

    tokens: Tensor
    probs: Tensor


def compute_soft_targets(
    teacher: CaptionModel,
    images: Source,
    captions: Sequence[list[list[int]]],
    precision: str = "float32",
    workers: int = 0,
    *,
    batch_size: int = BATCH_SIZE,
    top_tokens: int = TOP_TOKENS,
) -> list[SoftTargets]:
    """Compute the teacher's soft targets for each image's captions; called once before training.

    captions: token ids of each image's captions, as returned by `encode_captions`. workers: number
    of threads that prefetch images. batch_size: number of images per batch. top_tokens: L. The
    batches are the same on every call, so that a resumed run gets bit-identical soft targets.
    """
    device = device_of(teacher)
    batches = epoch_order(captions, batch_size, 0, 0, groups=images.groups, window=images.window)

    def load(indices: Sequence[int]) -> Batch:
        tokens = pad_captions([captions[i] for i in indices])
        return make_batch(images, indices, [str(i) for i in indices], tokens)

    progress = progress_bar(
        zip(batches, load_ahead(load, batches, workers), strict=True),
        desc="teachers",
        total=len(batches),
        unit="batch",
        shown=distributed.is_first(),
    )
    soft_targets: dict[int, SoftTargets] = {}
    for indices, batch in progress:
        tokens, probs = _predict(teacher, batch.to(device), precision, top_tokens)
        for i, *rows in zip(indices, tokens.cpu(), probs.cpu(), strict=True):
            count, length = len(captions[i]), len(captions[i][0]) - 1
            # Clone, because a view would keep the padded tensors of the whole batch in memory.
            soft_targets[i] = SoftTargets(*(row[:count, :length].clone() for row in rows))
    return [soft_targets[i] for i in range(len(captions))]


def _predict(
    teacher: CaptionModel, batch: Batch, precision: str, top_tokens: int
) -> tuple[Tensor, Tensor]:
    """Return the most likely tokens for each word and their probabilities, both (B, C, T, L)."""
    device = batch.tokens.device
    with torch.inference_mode(), products_in(precision, device):
        features = batch.features_by(teacher.encoder).float()
    with torch.inference_mode(), decoding_in(training_format(precision, device), device):
        predictions = teacher_forced_log_probs(teacher, features, batch.tokens, UNRESTRICTED)
        steps = [
            log_probs.topk(min(top_tokens, log_probs.shape[1])) for _, log_probs in predictions
        ]
        log_probs, tokens = (
            torch.unflatten(torch.stack(part, 1), 0, batch.tokens.shape[:2])
            for part in zip(*steps, strict=True)
        )
        return tokens.int(), log_probs.float().softmax(-1).half()


def add_soft_targets(
    batch: Batch, soft_targets: Sequence[SoftTargets], distill_weight: float = DISTILL_WEIGHT
) -> Batch:
    """Return the batch with the soft targets of its images, padded to the shape of its captions.

    distill_weight: share of the teacher in the target distribution, in [0, 1]. See Hinton et al.
    2015; here, the targets are restricted to the teacher's most likely tokens.
    """
    _, captions, words = batch.tokens[..., 1:].shape
    tokens, probs = (
        torch.stack([F.pad(x, (0, 0, 0, words - x.shape[1], 0, captions - len(x))) for x in part])
        for part in zip(*soft_targets, strict=True)
    )
    teacher = Distillation(tokens.long(), probs.float(), distill_weight)
    return replace(batch, distillation=teacher)
