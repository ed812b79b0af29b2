"""Random models, feature maps and captions in the sizes used by the benchmarks."""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captioner.data.batches import Batch, make_batch
from captioner.data.sources import FunctionSource
from captioner.decoding.options import DecodingOptions
from captioner.models.captioning.build import CaptioningModel, build_model
from captioner.models.captioning.options import ModelOptions
from captioner.text.collate import pad_captions


@dataclass(frozen=True)
class Sizes:
    """The sizes to which the published targets refer."""

    positions: int = 49
    channels: int = 1280
    vocabulary: int = 2541
    hidden: int = 512  # also of embedding, annotations and attention
    steps: int = 20
    beams: int = 5
    batch: int = 64
    captions: int = 5


SIZES = Sizes()


class NoEncoder(nn.Module):
    """A placeholder encoder for a model that receives features as input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def build(sizes: Sizes, *, attention: bool, device: torch.device) -> CaptioningModel:
    """Build a model with random weights, in eval mode."""
    torch.manual_seed(0)
    options = ModelOptions(
        attention=attention,
        embedding_size=sizes.hidden,
        hidden_size=sizes.hidden,
        annotation_size=sizes.hidden,
        attention_size=sizes.hidden,
    )
    encoder = NoEncoder(sizes.channels)
    model = build_model(encoder, sizes.vocabulary, options)  # type: ignore[arg-type]
    return model.to(device).eval()


def draw_features(sizes: Sizes, images: int, device: torch.device) -> Tensor:
    """Draw maps (B, D, h, w) like those of an encoder that ends in a ReLU, channels last."""
    side = round(sizes.positions**0.5)
    maps = torch.randn(images, sizes.channels, side, side).relu()
    return maps.to(device, memory_format=torch.channels_last)


def forced(sizes: Sizes) -> DecodingOptions:
    """Return beam-search options (greedy for one beam) with exactly `steps` words per caption."""
    if sizes.beams == 1:
        return DecodingOptions("greedy", min_length=sizes.steps, max_length=sizes.steps)
    return DecodingOptions(beam_size=sizes.beams, min_length=sizes.steps, max_length=sizes.steps)


def draw_captions(
    sizes: Sizes, images: int, shortest: int, longest: int, seed: int = 0
) -> list[list[list[int]]]:
    """Draw captions of random words as tokens, each image's longest caption first."""
    rng = random.Random(seed)
    return [
        sorted(
            (
                [1, *(rng.randrange(4, sizes.vocabulary) for _ in range(length)), 2]
                for length in (rng.randint(shortest, longest) for _ in range(sizes.captions))
            ),
            key=len,
            reverse=True,
        )
        for _ in range(images)
    ]


def draw_batch(sizes: Sizes, images: int, shortest: int, longest: int, seed: int = 0) -> Batch:
    """Draw a batch with captions of random words, like one loaded from the feature cache."""
    captions = draw_captions(sizes, images, shortest, longest, seed)
    maps = draw_features(sizes, images, torch.device("cpu")).half()
    source = FunctionSource(lambda _: maps, are_features=True)
    return make_batch(source, range(images), range(images), pad_captions(captions))


def word_operations(sizes: Sizes, attention: bool) -> int:
    """Count floating-point operations per word by the plain equations, two per multiplication."""
    s, h = sizes, sizes.hidden
    if not attention:
        return 2 * (h * 4 * h + h * 4 * h + h * h + h * s.vocabulary)
    gates = (h + h + h) * 4 * h
    attending = h * h + s.positions * h + s.positions * h + h * h  # the last is the gate's
    output = h * h + h * h + h * s.vocabulary
    return 2 * (gates + attending + output)


def image_operations(sizes: Sizes, attention: bool) -> int:
    """Count operations per image: annotations, keys and initial state, or the embedding."""
    if not attention:
        return 2 * (sizes.channels * sizes.hidden + 8 * sizes.hidden**2)
    annotations = sizes.positions * sizes.channels * sizes.hidden
    return 2 * (annotations + (sizes.positions + 2) * sizes.hidden**2)


def vary(sizes: Sizes, **changes: int) -> Sizes:
    return replace(sizes, **changes)
