"""Distillation: what teachers, models trained before, would say in the place of each word.

No loop and no optimizer: training.py takes such batches as any others. Shapes: B images,
C captions per image, T words, L likely words.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ... import distributed
from ...data.batches import Batch, epoch_order, make_batch
from ...data.sources import Source
from ...decoding.options import DecodingOptions
from ...decoding.teacher_forcing import teacher_forced_log_probs
from ...devices import products_in
from ...prefetch import load_ahead
from ...text.collate import pad_captions
from ..base import CaptionModel

TOGETHER = 32  # images
DISTILL_WEIGHT = 0.9  # of what is learned, the rest the captions' own words
LIKELY = 20  # words a place: of a trained model they have nearly all of the probability
FREELY = DecodingOptions(min_length=0, allow_unknown=True)


class SoftTargets(NamedTuple):
    """What a teacher holds likely in the place of each word of one image's captions.

    words, shares (C, T, L): the likeliest words, best first, and their probabilities, which sum
    to 1, in half precision.
    """

    words: Tensor
    shares: Tensor


def compute_soft_targets(
    teacher: CaptionModel,
    images: Source,
    captions: Sequence[list[list[int]]],
    precision: str = "float32",
    workers: int = 0,
) -> list[SoftTargets]:
    """A lesson for each image, of captions as `encode_captions` gives them.

    Images are told in the same groups whenever this is called, so that the same comes to the
    last digit. Takes 120 bytes a word. workers: threads that load ahead.
    """
    device = next(teacher.parameters()).device
    groups = epoch_order(captions, TOGETHER, 0, 0, groups=images.groups, window=images.window)

    def load(group: Sequence[int]) -> Batch:
        tokens = pad_captions([captions[i] for i in group])
        return make_batch(images, group, [str(i) for i in group], tokens)

    batches = tqdm(
        zip(groups, load_ahead(load, groups, workers), strict=True),
        desc="teachers",
        total=len(groups),
        unit="batch",
        disable=not distributed.is_first(),
        leave=False,
    )
    lessons: dict[int, SoftTargets] = {}
    for group, batch in batches:
        words, shares = _likely(teacher, batch.to(device), precision)
        for i, *rows in zip(group, words.cpu(), shares.cpu(), strict=True):
            size = len(captions[i]), len(captions[i][0]) - 1
            lessons[i] = SoftTargets(*(each[: size[0], : size[1]].clone() for each in rows))
    return [lessons[i] for i in range(len(captions))]


def _likely(teacher: CaptionModel, batch: Batch, precision: str) -> tuple[Tensor, Tensor]:
    """The likeliest words of a whole batch and their shares, (B, C, T, L)."""
    with torch.inference_mode(), products_in(precision, batch.tokens.device):
        features = batch.features_by(teacher.encoder)
        steps = [
            log_probs.topk(min(LIKELY, log_probs.shape[1]))
            for _, log_probs in teacher_forced_log_probs(teacher, features, batch.tokens, FREELY)
        ]
        log_probs, words = (
            torch.stack(part, 1).unflatten(0, batch.tokens.shape[:2])
            for part in zip(*steps, strict=True)
        )
        return words.int(), log_probs.float().softmax(-1).half()


def add_soft_targets(
    batch: Batch, lessons: Sequence[SoftTargets], distill_weight: float = DISTILL_WEIGHT
) -> Batch:
    """The batch with its images' lessons, to be `teaching`, in 0..1, of what is learned.

    Hinton et al. 2015, with the LIKELY likeliest words for all.
    """
    places = batch.tokens[..., 1:].shape
    words, shares = (
        torch.stack(
            [F.pad(x, (0, 0, 0, places[2] - x.shape[1], 0, places[1] - x.shape[0])) for x in part]
        )
        for part in zip(*lessons, strict=True)
    )
    return replace(
        batch,
        teacher_tokens=words.long(),
        teacher_probs=shares.float(),
        distill_weight=distill_weight,
    )
