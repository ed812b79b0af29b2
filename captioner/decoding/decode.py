"""Decoding feature maps and image sources into captions.

Shapes: B images, K hypotheses per image, R = B*K rows, T steps, V vocabulary, (h, w) grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from ..data.sources import Source
from ..devices import device_of, memory_advice, products_in
from ..prefetch import load_ahead
from ..products import decoding_in
from ..text.collate import pad_captions
from ..text.vocabulary import START
from .beam import beam_search
from .hypothesis import Generator, Hypothesis, ImageGenerator
from .mbr import TEMPERATURE, rerank
from .options import DecodingOptions
from .sampling import choose_words, generate
from .teacher_forcing import teacher_forced_log_probs

# Number of samples drawn together for reranking. The samples of a small group end at about the same
# time, so that fewer steps are wasted on samples that have ended.
MBR_SAMPLES_AT_ONCE = 512


@dataclass(frozen=True)
class DecodeSettings:
    """Settings for captioning images: decoding options, batch size, loading and precision.

    batch_size: number of images decoded together. workers: number of threads that load images
    ahead of the model; 0 loads in the calling thread. precision: number format of matrix products,
    one of `devices.PRECISIONS`.
    """

    options: DecodingOptions = DecodingOptions()
    batch_size: int = 64
    workers: int = 0
    precision: str = "float32"


def decode(model: Generator, features: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """Return `num_captions` captions per image of `features` (B, D, h, w), best first.

    Beam search returns distinct captions, so it returns fewer if the options do not allow that
    many. With `consensus`, the captions most similar to samples come first.
    """
    with torch.inference_mode():
        if options.consensus:
            found = _rerank_by_mbr(model, features, options)
        else:
            search = beam_search if options.method == "beam" else generate
            found = search(model, features, options)
        if options.word_alternatives:
            return _with_alternatives(model, features, found, options)
        return found


def _rerank_by_mbr(
    model: Generator, features: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Return the `num_captions` captions of the beam that are most similar to samples.

    The samples are drawn with a fixed seed, so that an image's captions do not depend on its batch.
    """
    assert options.consensus
    beam_options = replace(options, num_captions=options.beams, consensus=None)
    sample_options = replace(
        beam_options,
        method="sample",
        num_captions=options.consensus,
        beam_size=None,
        length_penalty=None,
        temperature=TEMPERATURE,
        seed=0,
    )
    found = beam_search(model, features, beam_options)
    ranked = []
    group_size = max(1, MBR_SAMPLES_AT_ONCE // options.consensus)  # images
    for first in range(0, len(found), group_size):
        group = slice(first, first + group_size)
        ranked += rerank(found[group], choose_words(model, features[group], sample_options))
    return [captions[: options.num_captions] for captions in ranked]


def _with_alternatives(
    model: Generator, features: Tensor, found: list[list[Hypothesis]], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Add the most likely alternative words at each position to the captions.

    This runs the model once more over the finished captions, because storing all distributions
    during search would take V numbers per hypothesis and step.
    """
    tokens = pad_captions([[[START, *caption.tokens] for caption in group] for group in found])
    tokens = tokens.to(features.device)
    steps = []
    for own, log_probs in teacher_forced_log_probs(model, features, tokens, options):
        others = log_probs.scatter(1, own[:, None], -torch.inf)
        steps.append(others.topk(min(options.word_alternatives, others.shape[1])))
    values, words = (
        torch.unflatten(torch.stack(part, 1), 0, tokens.shape[:2]).tolist()  # (B, K, T, n)
        for part in zip(*steps, strict=True)
    )
    return [
        [_add_alternatives(caption, words[b][k], values[b][k]) for k, caption in enumerate(group)]
        for b, group in enumerate(found)
    ]


def _add_alternatives(
    caption: Hypothesis, words: list[list[int]], log_probs: list[list[float]]
) -> Hypothesis:
    """Add to the caption the alternative words at each position and their log-probabilities."""
    positions = (
        tuple(
            (word, log_prob)
            for word, log_prob in zip(*position, strict=True)
            if log_prob > -torch.inf  # words at -inf are forbidden by the options
        )
        for position in zip(words, log_probs, strict=True)
    )
    return replace(caption, alternatives=tuple(islice(positions, len(caption.tokens))))


def caption_batches(
    model: ImageGenerator,
    source: Source,
    batches: Sequence[Sequence[int]],
    settings: DecodeSettings,
) -> Iterator[tuple[Sequence[int], list[list[Hypothesis]]]]:
    """Load, encode and decode a source batch by batch, in eval mode.

    batches: indices into the source. They determine how many images are decoded together;
    `settings.batch_size` is ignored. Yields each batch and the captions of its images, best first.
    The model's mode is restored at the end. Raises InputError for an image that cannot be loaded,
    if the source does, and if memory is insufficient.
    """
    device = device_of(model)
    loaded = load_ahead(source.load, batches, settings.workers, pin=device.type == "cuda")
    was_training = model.training
    model.train(False)
    try:
        for batch, values in zip(batches, loaded, strict=True):
            tried = f"decoding {len(batch)} images together on {device} in {settings.precision}"
            smaller = (
                "batch size or beam size" if settings.options.method == "beam" else "batch size"
            )
            with (
                memory_advice(tried, f"pass a smaller {smaller}"),
                torch.inference_mode(),
            ):
                features = values.to(device, non_blocking=True).float()
                if not source.are_features:
                    with products_in(settings.precision, device):
                        features = model.encoder(features)
                with decoding_in(settings.precision, device):
                    found = decode(model, features.float(), settings.options)
            yield batch, found
    finally:
        model.train(was_training)
