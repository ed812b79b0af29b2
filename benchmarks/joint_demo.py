"""What a linking model of the demo data knows: retrieval, queries `A - B`, and who is left of whom.

python train.py --system joint
python -m benchmarks.joint_demo --checkpoint checkpoints/demo-joint-infonce
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from captioner import Linker
from captioner.data.demo.dataset import read_shapes
from captioner.data.demo.shapes import COLORS, KINDS, TEXTURES, DrawnShape
from captioner.data.readers import read_captions
from captioner.data.sources import ImageSource
from captioner.tasks.linking.vectors import score_split

TOP = 5  # images of a query that are looked at
RELATIONS = {"left": ("to the left of", "to the right of"), "above": ("above", "below")}


@dataclass(frozen=True)
class Subtraction:
    """The queries A and A - B: mean shares of their first images that have A and lack B."""

    queries: int
    alone: float
    subtracted: float


def attributes() -> dict[str, str]:
    """Return the words for attributes of shapes, and the field of `DrawnShape` of each."""
    words = dict.fromkeys(KINDS, "kind") | dict.fromkeys(COLORS, "color")
    return words | {texture: "texture" for texture in TEXTURES if texture != "solid"}


def has(shapes: Sequence[DrawnShape], word: str) -> bool:
    """Return whether any shape of a scene has the attribute."""
    return any(getattr(shape, attributes()[word]) == word for shape in shapes)


def subtract(linker: Linker, rows: np.ndarray, scenes: Sequence[list[DrawnShape]]) -> Subtraction:
    """Measure the queries A - B of all words for different kinds of attribute.

    rows (I, E): embeddings of the images; scenes: their shapes. Queries are left out if fewer than
    TOP images have A and lack B.
    """
    words = attributes()
    present = {word: np.array([has(scene, word) for scene in scenes]) for word in words}
    alone: list[float] = []
    subtracted: list[float] = []
    for a, b in permutations(words, 2):
        right = present[a] & ~present[b]
        if words[a] == words[b] or right.sum() < TOP:
            continue
        for query, shares in ((a, alone), (f"{a} - {b}", subtracted)):
            scores = rows @ linker.encode_query(query)
            shares.append(float(right[np.argsort(-scores, kind="stable")[:TOP]].mean()))
    return Subtraction(len(alone), float(np.mean(alone)), float(np.mean(subtracted)))


def swaps(captions: Sequence[str], relations: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the captions that say "X RELATION Y", each with "Y RELATION X"."""
    for caption in captions:
        for relation in relations:
            first, found, second = caption.partition(f" {relation} ")
            if found:
                yield caption, f"{second} {relation} {first}"


def told_apart(
    linker: Linker, rows: np.ndarray, captions: Sequence[Sequence[str]], relations: Sequence[str]
) -> tuple[int, float]:
    """Return the number of captions with a relation, and the share above its swapped caption.

    rows (I, E): embeddings of the images; captions: those of each image. Ties count as wrong.
    """
    pairs = [
        (row, true, swapped)
        for row, texts in zip(rows, captions, strict=True)
        for true, swapped in swaps(texts, relations)
    ]
    images = np.stack([row for row, _, _ in pairs])
    true, swapped = (linker.encode_texts([pair[i] for pair in pairs]) for i in (1, 2))
    better = (images * true).sum(1) > (images * swapped).sum(1)
    return len(pairs), float(better.mean())


def main() -> None:
    """Print the measurements of one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("checkpoints/.cache/demo-v6/demo"))
    parser.add_argument("--split", default="val")
    argv = parser.parse_args()
    linker = Linker.from_pretrained(argv.checkpoint)
    data = read_captions(argv.data)
    examples = data.split(argv.split)
    shapes = read_shapes(argv.data, argv.split)
    images = ImageSource([example.path for example in examples], linker.transform)
    print(score_split(linker, images, data, argv.split).describe())
    rows = linker.encode_source(images, len(examples))
    found = subtract(linker, rows, [shapes[example.id] for example in examples])
    print(
        f"A - B: {found.subtracted:.3f} of the first {TOP} images have A and lack B "
        f"({found.alone:.3f} for A alone, {found.queries} queries)"
    )
    for name, relations in RELATIONS.items():
        captions = [example.captions for example in examples]
        count, share = told_apart(linker, rows, captions, relations)
        print(f"{name}: {share:.3f} of {count} captions score higher than with X and Y swapped")


if __name__ == "__main__":
    main()
