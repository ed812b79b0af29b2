"""Scores of 100 x 500 pairs by m-CNNs, split and unsplit: python -m benchmarks.mcnn.

Unsplit, every layer is computed for every pair, and the layer that reads the image multiplies both
inputs at once. Texts have as many words as captions of Flickr8k, and both ways score the same
blocks of texts, so that padding costs them the same. The layer alone is timed, too.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import measure
from captioner.models.linking.mcnn import CHUNK, POOL, WINDOW, MultimodalCNN, pool
from captioner.models.linking.options import LEVELS, McnnOptions
from captioner.models.linking.texts import Texts
from captioner.text.vocabulary import PAD
from captioner.training.config import TrainConfig

CHANNELS, WORDS = 1280, 4500
MEAN_LENGTH, DEVIATION, LONGEST = 11, 3.5, 30  # of texts, in words


def build(level: str, device: torch.device) -> MultimodalCNN:
    """Return a model with random weights, of the default sizes for a trained encoder."""
    torch.manual_seed(0)
    options = TrainConfig.from_options("mcnn", level=level, encoder="mobilenet_v2").model
    assert isinstance(options, McnnOptions)
    model = MultimodalCNN(CHANNELS, WORDS, options, nn.Identity())  # type: ignore[arg-type]
    return model.eval().to(device)


def draw(images: int, texts: int, device: torch.device) -> tuple[Tensor, Texts]:
    """Return pooled features of images, and texts in the order of their lengths."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.normal(MEAN_LENGTH, DEVIATION, (texts,), generator=generator)
    lengths = lengths.round().clamp(3, LONGEST).sort().values
    tokens = torch.randint(1, WORDS, (texts, LONGEST), generator=generator)
    tokens[torch.arange(LONGEST) >= lengths[:, None]] = PAD
    features = torch.rand(images, 2, CHANNELS, generator=generator)
    return features.to(device), Texts(tokens.to(device))


def split(model: MultimodalCNN, features: Tensor, texts: Texts) -> Tensor:
    """Return the scores (B, N) as the library computes them, from features and tokens."""
    return model.score_matrix(model.image_parts(features), texts)


def unsplit(model: MultimodalCNN, features: Tensor, texts: Texts, block: int = 250) -> Tensor:
    """Return the scores (B, N): each layer reads the whole input of each pair."""
    vectors = model.read_images(features)
    parts = []
    for rows in torch.arange(len(texts), device=features.device).split(block):
        tokens = texts.take(rows).tokens
        assert tokens is not None
        few = vectors.split(max(1, CHUNK // len(rows)))
        parts.append(torch.cat([_unsplit_block(model, each, tokens) for each in few]))
    return torch.cat(parts, 1)


def _unsplit_block(model: MultimodalCNN, vectors: Tensor, tokens: Tensor) -> Tensor:
    """Return the scores (b, n) of image vectors (b, V) and tokens (n, T)."""
    tokens = tokens.expand(len(vectors), *tokens.shape)
    units, gates = model.words(tokens) * model.word_scale, tokens != PAD
    for number in range(len(model.layers)):
        units, gates = _whole_layer(model, number, units, gates, vectors)
    return model.output(units)[..., 0, 0]


def _whole_layer(
    model: MultimodalCNN, number: int, units: Tensor, gates: Tensor, vectors: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the pooled outputs (b, n, U', C') of a layer for every pair, and their gates."""
    layer, above = model.layers[number], len(model.layers) - 1 - number
    inputs, weight = windows(units) if above else units, layer.weight
    if number == model.merging:
        repeated = vectors[:, None, None].expand(*inputs.shape[:-1], -1)
        inputs = torch.cat([inputs, repeated], -1)
        weight = torch.cat([weight, model.image_layer.weight], 1)
    found = nn.functional.linear(inputs, weight, layer.bias).relu()
    if not above:
        return found, gates
    gates = windows(gates[..., None]).any(-1)
    size = POOL if above > 1 else gates.shape[-1]
    return pool(found * gates[..., None], size, 0), pool(gates[..., None], size, False)[..., 0]


def windows(units: Tensor) -> Tensor:
    """Return the window (..., U, WINDOW * C) that begins at each unit (..., U, C)."""
    padded = nn.functional.pad(units, (0, 0, 0, WINDOW - 1))
    return padded.unfold(-2, WINDOW, 1).mT.flatten(-2)


def layer_alone(
    model: MultimodalCNN, features: Tensor, texts: Texts
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return the work of the layer that reads the image for a block of pairs, split and unsplit.

    The parts of images and of texts exist already, as for all blocks but the first.
    """
    vectors = model.read_images(features)[:4]
    block = texts.take(torch.arange(len(texts))[:: max(1, 4 * len(texts) // CHUNK)])
    assert block.tokens is not None
    units, gates = model.words(block.tokens) * model.word_scale, block.tokens != PAD
    for number in range(model.merging):
        units, gates = _whole_layer(model, number, units, gates, vectors)
    images, parts = model.image_layer(vectors)[:, None, None], model.text_parts(block)
    shape = (len(vectors), *gates.shape)
    units, gates = units.expand(*shape, -1), gates.expand(shape)
    return (
        lambda: (parts.sums + images).relu(),
        lambda: _whole_layer(model, model.merging, units, gates, vectors)[0],
    )


def ratios(
    model: MultimodalCNN, features: Tensor, texts: Texts, rounds: int, device: torch.device
) -> list[object]:
    """Return one row of the table; exit if split and unsplit scores differ."""
    found, expected = (way(model, features, texts) for way in (split, unsplit))
    if not torch.allclose(found, expected, atol=1e-4):
        raise SystemExit(f"{model.options.level}: split and unsplit scores differ")
    ways = {way.__name__: partial(way, model, features, texts) for way in (split, unsplit)}
    once, every = layer_alone(model, features, texts)
    times = measure.side_by_side({**ways, "once": once, "every": every}, rounds, device)
    total, layer = times["unsplit"] / times["split"], times["every"] / times["once"]
    seconds = [f"{times[name]:.3f}" for name in ("unsplit", "split")]
    return [model.options.level, *seconds, f"{total:.1f}", f"{layer:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=LEVELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device, rounds = torch.device(arguments.device), arguments.rounds
    features, texts = draw(arguments.images, arguments.texts, device)
    with torch.inference_mode():
        rows = [
            ratios(build(level, device), features, texts, rounds, device)
            for level in arguments.levels
        ]
    print(measure.table(["level", "unsplit, s", "split, s", "ratio", "ratio of the layer"], rows))
    print(f"\n{arguments.images} x {arguments.texts} pairs. {measure.machine(device)}")


if __name__ == "__main__":
    main()
