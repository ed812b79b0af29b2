"""Parts of the linking systems beside the plain way to compute them: python -m benchmarks.linking.

Inputs are random in the sizes of Flickr8k and of an index of a million images. Each pair must agree
before it is timed, and takes turns. Times are processor time, which other programs change little.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import mcnn, measure
from captioner.models.linking.cca import fit_cca
from captioner.models.linking.options import LEVELS, SpatialOptions
from captioner.models.linking.spatial import SpatialEmbedding
from captioner.regions import label_maps
from captioner.retrieval.exact import search

CPU = torch.device("cpu")
RIDGE, DIMENSIONS, TOP = 1.0, 300, 10
Pair = tuple[Callable[[], object], Callable[[], object]]  # the plain way, and the library's


def cca(images: int, texts: int, sizes: tuple[int, int] = (1280, 700)) -> Pair:
    """Return both ways to fit CCA: by SVD of the covariances of all pairs, and `fit_cca`."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, sizes[0], generator=generator)
    y = torch.randn(texts, sizes[1], generator=generator)
    image_of_text, shared = torch.arange(texts) % images, min(100, *sizes)
    y[:, :shared] += x[image_of_text, :shared]  # correlated
    dimensions = min(DIMENSIONS, *sizes)

    def plain() -> np.ndarray:
        left, right = x[image_of_text].double().numpy(), y.double().numpy()
        left, right = left - left.mean(0), right - right.mean(0)
        roots = [_inverse_root(side.T @ side / texts) for side in (left, right)]
        return np.linalg.svd(roots[0] @ (left.T @ right / texts) @ roots[1])[1][:dimensions]

    fit = partial(fit_cca, x, y, image_of_text, dimensions=dimensions, ridge=RIDGE, power=1.0)
    _check("CCA", plain(), fit()[2].numpy(), 1e-4)
    return plain, fit


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """Return the inverse square root of a covariance with a ridge."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray((vectors / np.sqrt(values + RIDGE * values.mean())) @ vectors.T)


def maps(images: int, labels: int, channels: int = 1280, dimensions: int = 300) -> Pair:
    """Return both ways to compute label maps: one by one with convolutions, and `label_maps`."""
    torch.manual_seed(0)
    model = SpatialEmbedding(channels, dimensions, SpatialOptions(), nn.Identity())  # type: ignore[arg-type]
    features = torch.rand(images, channels, 7, 7)
    vectors = nn.functional.normalize(torch.randn(labels, dimensions), dim=1)

    def plain() -> Tensor:
        weights = model.hidden.weight * model.log_gain.exp(), model.output.weight
        first, last = (weight[..., None, None] for weight in weights)
        found = []
        for image in features:
            regions = model.regions(image[None])
            for vector in vectors:
                cosines = (regions * vector[:, None, None]).sum(2)  # (1, K, h, w)
                hidden = nn.functional.conv2d(cosines, first, model.hidden.bias).relu()
                found.append(nn.functional.conv2d(hidden, last, model.output.bias).sigmoid())
        return torch.cat(found).view(images, labels, 7, 7)

    library = partial(label_maps, model, features, vectors)
    _check("label maps", plain(), library(), 1e-4)
    return plain, library


def pairs(level: str, images: int, texts: int) -> Pair:
    """Return both ways to score pairs by an m-CNN: unsplit and split."""
    model, drawn = mcnn.build(level, CPU), mcnn.draw(images, texts, CPU)
    plain, library = (partial(way, model, *drawn) for way in (mcnn.unsplit, mcnn.split))
    _check(f"m-CNN {level}", plain(), library(), 1e-4)
    return plain, library


def nearest(rows: int, dimensions: int = 256) -> Pair:
    """Return both ways to search half-precision rows: by NumPy with a full sort, and `search`."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.empty(rows, dimensions, dtype=torch.float16)
    for block in matrix.split(50_000):
        block.copy_(torch.randn(block.shape, generator=generator))
    stored = matrix.numpy()
    vector = torch.randn(dimensions, generator=generator).numpy()

    def plain() -> np.ndarray:
        return np.argsort(-(stored.astype(np.float32) @ vector))[:TOP]

    library = partial(search, stored, vector, TOP)
    _check("exact search", plain(), library()[0], 0)
    return plain, library


def _check(name: str, expected: object, found: object, tolerance: float) -> None:
    """Exit if the two ways disagree."""
    if not np.allclose(np.asarray(expected), np.asarray(found), rtol=0, atol=tolerance):
        raise SystemExit(f"{name}: the plain way and the library disagree")


def row(name: str, pair: Pair, rounds: int) -> list[object]:
    """Return the medians of both ways in processor time, and their ratio."""
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for way, times in zip(pair, spent, strict=True):
            started = time.process_time()
            way()
            times.append(time.process_time() - started)
    plain, library = map(median, spent)
    return [name, f"{plain:.3f}", f"{library:.3f}", f"{plain / library:.1f}x"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=30_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, nargs=2, default=(20, 100))
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=("phrase", "sentence"))
    parser.add_argument("--rounds", type=int, default=3)
    argv = parser.parse_args()
    few, many = argv.pairs
    cases: dict[str, Callable[[], Pair]] = {
        f"CCA, {n:,} x (1,280, 700), {each} per image": partial(cca, n // each, n)
        for n in (argv.texts,)
        for each in (1, 5)
    }
    cases["label maps, 64 images, 100 labels"] = partial(maps, 64, 100)
    for level in argv.levels:
        cases[f"m-CNN {level}, {few} x {many} pairs"] = partial(pairs, level, few, many)
    cases[f"exact search, {argv.rows:,} x 256"] = partial(nearest, argv.rows)
    with torch.inference_mode():
        rows = [row(name, build(), argv.rounds) for name, build in cases.items()]
    print(measure.table(["", "plain, s", "library, s", "ratio"], rows))
    print(f"\nMedians of {argv.rounds} rounds. {measure.machine(CPU)}")


if __name__ == "__main__":
    main()
