"""What spatial models find, and where: python -m benchmarks.spatial --checkpoint RUN...

Prints a table of medians over the runs, which should differ only in their seeds.

- Labels: mean average precision of seen and of held-out labels on a split.
- Composites: pairs of the split's images, squeezed side by side. A label that only one of the two
  images has should have a hotter half there; two groups of regions should be divided by the seam;
  and a painting of a half should find the composites with the label in that half.
- The demo: how often maps peak on the named shape, masks, and painted search.
- Time and bytes of label maps that are computed from the rows of an index.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from benchmarks import measure
from captioner.checkpoints import checkpoint
from captioner.checkpoints.runs import CHECKPOINTS
from captioner.data.dataset import CaptionData, Example
from captioner.data.demo import dataset as demo
from captioner.data.demo.shapes import COLORS, KINDS, PLURALS, SIDE, DrawnShape
from captioner.data.images import load_image
from captioner.data.labels import caption_words, image_labels
from captioner.data.readers import load_data
from captioner.data.sources import ImageSource
from captioner.linker import Linker
from captioner.metrics.ranking import precision_at
from captioner.models.linking.spatial import SpatialEmbedding
from captioner.regions import cluster_regions, spatial
from captioner.retrieval.index_files import RegionShape
from captioner.retrieval.painting import painted_scores, parse_layer
from captioner.retrieval.region_rows import pack, unpack
from captioner.tasks.linking.label_scores import score_spatial
from captioner.tasks.linking.segments import score_demo
from captioner.vision.feature_store import FeatureStore, Runtime

K = 5
FREQUENT = 100  # labels
MIN_RELEVANT = 5  # images of a painted query
TIMED_IMAGES, TIMED_LABELS = 1000, 100
RESAMPLES = 2000
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


def pair_up(count: int, pairs: int, seed: int = 0) -> list[tuple[int, int]]:
    """Return random pairs of different images; an image occurs again only after all others."""
    rng, found = random.Random(seed), list[tuple[int, int]]()
    while len(found) < pairs:
        order = rng.sample(range(count), count)
        found += zip(order[::2], order[1::2], strict=False)
    return found[:pairs]


def squeeze(left: Image.Image, right: Image.Image, side: int) -> Image.Image:
    """Return a square image with both images side by side."""
    composite = Image.new("RGB", (side, side))
    for number, image in enumerate((left, right)):
        half = image.resize((side // 2, side), Image.Resampling.BICUBIC)
        composite.paste(half, (number * (side // 2), 0))
    return composite


@dataclass(frozen=True)
class Composites:
    """Features (N, D, h, w) of composites, and for both sides whether a label is there (2, N, L).

    present: the label is certain. absent: no caption of the image mentions it.
    """

    features: torch.Tensor
    present: np.ndarray
    absent: np.ndarray

    @classmethod
    def build(
        cls, features: torch.Tensor, examples: Sequence[Example], names: Sequence[str]
    ) -> "Composites":
        """Add the labels to the result of `encode_composites`."""
        chosen = pair_up(len(examples), len(features))
        labels = image_labels(caption_words(examples), names)
        mentioned, present = labels.mentioned(), np.zeros((len(examples), len(names)), bool)
        for row, ids in zip(present, labels.present, strict=True):
            row[ids] = True
        sides = np.array(chosen).T  # (2, N)
        return cls(features, present[sides], ~mentioned[sides])

    @property
    def one_sided(self) -> np.ndarray:
        """Whether a label is only on the left, and only on the right, (2, N, L)."""
        return self.present & self.absent[::-1]


def encode_composites(linker: Linker, examples: Sequence[Example], pairs: int) -> torch.Tensor:
    """Encode composites of the examples' images as feature maps (pairs, D, h, w), float16."""
    chosen, transform = pair_up(len(examples), pairs), linker.transform
    encoder, features = spatial(linker.model).encoder, []
    for first in range(0, pairs, 32):
        images = [
            squeeze(load_image(examples[i].path), load_image(examples[j].path), transform.size)
            for i, j in chosen[first : first + 32]
        ]
        with torch.inference_mode():
            features.append(encoder(transform.batch(images).to(linker.device)).half())
    return torch.cat(features)


def columns_of(width: int, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which columns of a map are in the left half of an image, and which in the right."""
    centres = (np.arange(width) + 0.5 + offset) / width
    return centres < 0.5 - 1e-9, centres > 0.5 + 1e-9


def measure_composites(linker: Linker, made: Composites, names: Sequence[str]) -> dict[str, float]:
    """Return the scores of hotter halves, of the seam, and of painted search."""
    model = spatial(linker.model)
    vectors = torch.from_numpy(linker.encode_texts(list(names))).to(linker.device)
    seen = linker.encode_texts(linker.known_labels.seen)
    maps, scores, right_cells = [], [], []
    offset = model.encoder.offset
    for features in made.features.split(32):
        with torch.inference_mode():
            regions = model.regions(features.to(linker.device))
            logits = model.map_logits(regions, vectors)
            maps.append(logits.sigmoid().cpu().numpy())
            scores.append(model.score_logits(logits).cpu().numpy())
        left, right = columns_of(regions.shape[-1], offset)
        for own in regions.cpu().numpy():
            groups = cluster_regions(own, seen, 2)
            inside = np.concatenate([groups[:, left].ravel() == 0, groups[:, right].ravel() == 1])
            right_cells.append(max(inside.mean(), 1 - inside.mean()))
    all_maps, all_scores = np.concatenate(maps), np.concatenate(scores)
    halves = np.stack([all_maps[..., side].mean((2, 3)) for side in (left, right)])  # (2, N, L)
    hotter = np.concatenate(
        [(halves[side] > halves[1 - side])[made.one_sided[side]] for side in (0, 1)]
    )
    numbers = {
        "label's half is hotter": float(hotter.mean()),
        "queries of hotter halves": float(len(hotter)),
        "k-means finds the seam": float(np.mean(right_cells)),
    }
    return numbers | paint_halves(all_maps, all_scores, made.one_sided, names, offset)


def paint_halves(
    maps: np.ndarray, scores: np.ndarray, one_sided: np.ndarray, names: Sequence[str], offset: float
) -> dict[str, float]:
    """Return P@5 of painted and of label-only search, and the interval of their difference.

    A composite is right if it has the label on the painted side only. maps (N, L, h, w); scores
    (N, L); one_sided (2, N, L). Labels with too few right composites on a side are left out.
    """
    alone, painted, both = [], [], []
    for i in range(len(names)):
        for side, place in enumerate(("left", "right")):
            relevant = one_sided[side, :, i]
            if relevant.sum() < MIN_RELEVANT:
                continue
            here, there = parse_layer(f"x={place}"), parse_layer(f"-x={OPPOSITE[place]}")
            own = maps[:, [i]]
            alone.append(precision_at(scores[:, i], relevant, K))
            painted.append(precision_at(painted_scores(own, [here], offset), relevant, K))
            sides = painted_scores(own.repeat(2, 1), [here, there], offset)
            both.append(precision_at(sides, relevant, K))
    numbers = {"painted queries": float(len(alone)), "P@5, label only": float(np.mean(alone))}
    numbers["P@5, painted half"] = float(np.mean(painted))
    numbers["P@5, painted half and not the other"] = float(np.mean(both))
    for name, values in (("painted half", painted), ("painted half and not the other", both)):
        low, high = interval(np.array(values) - alone)
        numbers |= {f"gain, {name}": float(np.mean(values) - np.mean(alone))}
        numbers |= {f"gain, {name}, low": low, f"gain, {name}, high": high}
    return numbers


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean from bootstrap samples of the queries."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.quantile(differences[drawn].mean(1), (0.025, 0.975))
    return float(low), float(high)


def measure_demo(linker: Linker, data: CaptionData, split: str) -> dict[str, float]:
    """Return pointing, the best mean IoU over thresholds, and P@5 of painted search of the demo."""
    numbers: dict[str, float] = {}
    for threshold in (0.8, 0.5):
        for refined in (True, False):
            found = score_demo(linker, data, split, threshold, refined)
            if found is None or found.pointing is None:
                return {}
            numbers["pointing"] = found.pointing.accuracy / 100
            how = f"threshold {threshold}{'' if refined else ', not refined'}"
            numbers[f"mean IoU, {how}"] = found.masks.mean_iou
    examples, shapes = data.split(split), demo.read_shapes(data.root, split)
    words = [*KINDS, *COLORS]
    maps = linker.label_maps([load_image(example.path) for example in examples], words)
    own = [shapes[example.id] for example in examples]
    offset = spatial(linker.model).encoder.offset
    found_by_query = [
        precision_at(painted_scores(maps[:, [i]], [parse_layer(f"x={place}")], offset), relevant, K)
        for i, word in enumerate(words)
        for place in OPPOSITE
        if (relevant := np.array([is_at(each, word, place) for each in own])).sum() >= MIN_RELEVANT
    ]
    return numbers | {"painted search of the demo, P@5": float(np.mean(found_by_query))}


def is_at(shapes: Sequence[DrawnShape], word: str, place: str) -> bool:
    """Return whether the centre of a shape with this kind or colour is in a half of the image."""
    axis, sign = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}[place]
    named = [s for s in shapes if word in (s.kind, s.color, PLURALS[s.kind])]
    return any(sign * (s.box[axis] + s.box[axis + 2] - SIDE) > 0 for s in named)


def measure_time(linker: Linker, features: torch.Tensor) -> dict[str, float]:
    """Return seconds to compute label maps from rows of an index, and the bytes of a row."""
    model, shape = spatial(linker.model), linker.region_shape
    assert shape is not None
    names = linker.known_labels.names
    repeated = [names[i % len(names)] for i in range(TIMED_LABELS)]
    vectors = torch.from_numpy(linker.encode_texts(repeated)).to(linker.device)
    with torch.inference_mode():
        rows = np.concatenate(
            [
                pack(model.regions(part.to(linker.device)).cpu())
                for part in features[:TIMED_IMAGES].split(32)
            ]
        )
    rows = rows[np.arange(TIMED_IMAGES) % len(rows)]
    started = time.perf_counter()
    for maps in timed_maps(model, rows, shape, vectors):
        assert maps.shape[1] == TIMED_LABELS
    seconds = time.perf_counter() - started
    return {"seconds for 1,000 x 100 maps": seconds, "bytes per image": float(shape.bytes)}


def timed_maps(
    model: SpatialEmbedding, rows: np.ndarray, shape: RegionShape, vectors: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Compute label maps as `Index.label_maps` does."""
    for first in range(0, len(rows), 128):
        with torch.inference_mode():
            regions = unpack(rows[first : first + 128], shape).to(vectors.device)
            yield model.map_logits(regions, vectors).sigmoid()


def measure_run(
    path: Path, options: argparse.Namespace, encoded: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Return all numbers of one run.

    encoded: composites by the fingerprint of their encoder, filled and used by further runs.
    """
    read = checkpoint.load(path)
    linker = Linker.from_checkpoint(read, options.device)
    stored = read.config["data"]["path"]
    data = load_data(options.data or (stored and Path(stored)), None, options.cache)
    examples, model = data.split(options.split), spatial(linker.model)
    store = FeatureStore(options.cache, model.encoder, linker.transform)
    images = store.open_files(
        ImageSource([example.path for example in examples], linker.transform),
        Runtime(linker.device, 1),
    )
    result = score_spatial(linker, images, data, options.split, None)
    numbers = {
        "held-out labels, mAP": result.held_out.mean,
        "held-out labels, times chance": result.held_out.over_chance,
        f"{FREQUENT} most frequent seen labels, mAP": result.seen.mean,
        "their chance": result.seen.chance,
        "rsum": result.retrieval.numbers["rsum"],
    }
    names = linker.known_labels.names if options.all else linker.known_labels.seen[:FREQUENT]
    key = model.encoder.fingerprint()
    if key not in encoded:
        encoded[key] = encode_composites(linker, examples, options.pairs)
    made = Composites.build(encoded[key], examples, names)
    numbers |= measure_composites(linker, made, names)
    numbers |= measure_demo(linker, data, options.split)
    return numbers | measure_time(linker, made.features)


def table(runs: Sequence[dict[str, float]]) -> str:
    """Format the median of each number, and its range if there are several runs."""
    lines = ["| what | median | range |", "| --- | --- | --- |"]
    for name in runs[0]:
        values = [run[name] for run in runs]
        spread = "" if len(runs) == 1 else f"{min(values):.4g} to {max(values):.4g}"
        lines.append(f"| {name} | {median(values):.4g} | {spread} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, help="data directory [the checkpoint's]")
    parser.add_argument("--split", default="val", help="split to measure [%(default)s]")
    parser.add_argument("--pairs", type=int, default=1000, help="composites [%(default)s]")
    parser.add_argument("--all", action="store_true", help="composites: all labels, also held out")
    parser.add_argument("--cache", type=Path, default=CHECKPOINTS / ".cache")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(argv)
    encoded: dict[str, torch.Tensor] = {}
    runs = [measure_run(path, options, encoded) for path in options.checkpoint]
    print(f"{len(runs)} runs, {options.split} split; {measure.machine(torch.device('cpu'))}\n")
    print(table(runs))


if __name__ == "__main__":
    main()
