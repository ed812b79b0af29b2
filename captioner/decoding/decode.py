"""From a model's `start` and `step` to captions with their log-probabilities and maps.

Nothing here knows which model it is, nor files or words. Shapes: B images, K hypotheses per
image, R = B*K rows, N captions asked for, T steps, V vocabulary, h, w grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from ..data.sources import Source
from ..devices import device_of, products_in
from ..prefetch import load_ahead
from ..text.collate import pad_captions
from ..text.vocabulary import START
from .beam import beam_search
from .hypothesis import Generator, Hypothesis, ImageGenerator
from .mbr import TEMPERATURE, rerank
from .options import DecodingOptions
from .sampling import choose_words, rollout
from .teacher_forcing import teacher_forced_log_probs


@dataclass(frozen=True)
class DecodeSettings:
    """How captions are chosen, and how the work is done.

    batch_size: images decoded together. workers: threads that load images ahead of the model.
    precision: number format of the products, one of `devices.PRECISIONS`.
    """

    options: DecodingOptions = DecodingOptions()
    batch_size: int = 64
    workers: int = 0
    precision: str = "float32"


TOGETHER = 512  # samples of consensus at once: small groups leave ended ones out sooner


def decode(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """For each feature map of (B, D, h, w) its `num_captions` captions, best first.

    Beam search, whose captions all differ, gives fewer where the options allow no more.
    """
    with torch.inference_mode():
        search = beam_search if options.method == "beam" else rollout
        found = (_agreed if options.consensus else search)(model, features, options)
        if options.word_alternatives:
            return _with_alternatives(model, features, found, options)
        return found


def _agreed(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """All captions of the beam, ranked by their agreement with samples, of which the best stay.

    Every image's samples are drawn by the same numbers, whatever batch it is in.
    """
    assert options.consensus
    all_found = replace(options, num_captions=options.beams, consensus=None)
    drawn = replace(
        all_found,
        method="sample",
        num_captions=options.consensus,
        beam_size=None,
        length_penalty=None,
        temperature=TEMPERATURE,
        seed=0,
    )
    found = beam_search(model, features, all_found)
    ranked = []
    images = max(1, TOGETHER // options.consensus)
    for first in range(0, len(found), images):
        some = slice(first, first + images)
        ranked += rerank(found[some], choose_words(model, features[some], drawn))
    return [group[: options.num_captions] for group in ranked]


def _with_alternatives(
    model: Generator, features: Tensor, found: list[list[Hypothesis]], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The captions found, each told to the model once more to see what else it would have said."""
    tokens = pad_captions([[[START, *each.tokens] for each in group] for group in found])
    tokens = tokens.to(features.device)
    steps = []
    for word, log_probs in teacher_forced_log_probs(model, features, tokens, options):
        others = log_probs.scatter(1, word[:, None], -torch.inf)
        steps.append(others.topk(min(options.word_alternatives, others.shape[1])))
    log_probs, words = (
        torch.stack(part, 1).unflatten(0, tokens.shape[:2]).tolist()  # (B, K, T, alternatives)
        for part in zip(*steps, strict=True)
    )

    def complete(each: Hypothesis, b: int, k: int) -> Hypothesis:
        ranked = (
            zip(*step, strict=True) for step in zip(words[b][k], log_probs[b][k], strict=True)
        )
        others = (tuple(pair for pair in step if pair[1] > -torch.inf) for step in ranked)
        return replace(each, alternatives=tuple(islice(others, len(each.tokens))))

    return [[complete(each, b, k) for k, each in enumerate(group)] for b, group in enumerate(found)]


def caption_batches(
    model: ImageGenerator,
    images: Source,
    batches: Sequence[Sequence[int]],
    options: DecodingOptions,
    *,
    workers: int = 0,
    precision: str = "float32",
) -> Iterator[tuple[Sequence[int], list[list[Hypothesis]]]]:
    """Load, encode and decode batch by batch; yields the indices and per image its captions."""
    device = device_of(model)
    ahead = load_ahead(images.load, batches, workers, pin=device.type == "cuda")
    was_training = model.training
    model.train(False)
    try:
        for batch, loaded in zip(batches, ahead, strict=True):
            with torch.inference_mode(), products_in(precision, device):
                values = loaded.to(device, non_blocking=True).float()
                features = values if images.are_features else model.encoder(values)
                found = decode(model, features, options)
            yield batch, found
    finally:
        model.train(was_training)
