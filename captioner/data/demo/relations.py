"""Texts about the demo's scenes whose relation to the image is known exactly.

A sentence names one shape: it is true if the image has a shape with all the attributes that the
sentence states. `cmi` is the share of four sentences that are true. `sc` is 1 if all sentences are
true, -1 if one of them states a wrong colour, and 0 if the image has none of the kinds of shape
that are named.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from ..dataset import Example
from ..formats.reading import TextLabels
from ..storage.location import Location
from .dataset import read_shapes
from .shapes import COLORS, KINDS, SIZES, TEXTURES, DrawnShape

SENTENCES = 4  # of a text whose CMI is known
SC_ROUNDS = 2  # texts of each SC value for an image
SOURCE = "demo shapes"

Look = tuple[str, str, str, str]  # size, texture, colour, kind
LabelledText = tuple[str, TextLabels]


def demo_texts(
    root: Path | Location, examples: Sequence[Example], seed: int
) -> dict[tuple[str, int | str], list[LabelledText]]:
    """Return labelled texts by split and image id.

    The result is {} if `root` is not a demo data set, or lacks the shapes of an image.
    """
    texts = {}
    for split in dict.fromkeys(example.split for example in examples):
        shapes = read_shapes(root, split)
        for example in examples:
            if example.split == split:
                if example.id not in shapes:
                    return {}
                rng = random.Random(f"{seed} {split} {example.id}")
                texts[split, example.id] = _texts(shapes[example.id], rng)
    return texts


def _texts(shapes: Sequence[DrawnShape], rng: random.Random) -> list[LabelledText]:
    looks = list(dict.fromkeys((s.size, s.texture, s.color, s.kind) for s in shapes))
    texts = []
    for count in range(SENTENCES + 1):
        named = [rng.choice(looks) for _ in range(count)]
        named += [_absent_look(looks, rng) for _ in range(SENTENCES - count)]
        rng.shuffle(named)
        texts.append(_text(named, TextLabels({"cmi": count / SENTENCES}, SOURCE), rng))
    for _ in range(SC_ROUNDS):
        wrong, position = list(looks), rng.randrange(len(looks))
        size, texture, _color, kind = looks[position]
        taken = {c for _, _, c, k in looks if k == kind}
        wrong[position] = (size, texture, rng.choice([c for c in COLORS if c not in taken]), kind)
        kinds = [kind for kind in KINDS if kind not in {look[3] for look in looks}]
        unrelated = [_random_look(rng, kinds) for _ in looks]
        for value, named in ((1.0, list(looks)), (-1.0, wrong), (0.0, unrelated)):
            rng.shuffle(named)
            texts.append(_text(named, TextLabels({"sc": value}, SOURCE), rng))
    return texts


def _random_look(rng: random.Random, kinds: Sequence[str] = KINDS) -> Look:
    choices = (tuple(SIZES), TEXTURES, tuple(COLORS), kinds)
    size, texture, color, kind = (rng.choice(each) for each in choices)
    return size, texture, color, kind


def _absent_look(looks: Sequence[Look], rng: random.Random) -> Look:
    """Return the look of a shape whose kind and colour no shape of the image has together."""
    present = {look[2:] for look in looks}
    while (look := _random_look(rng))[2:] in present:
        pass
    return look


def _text(looks: Sequence[Look], labels: TextLabels, rng: random.Random) -> LabelledText:
    return "\n".join(_sentence(look, rng) for look in looks), labels


def _sentence(look: Look, rng: random.Random) -> str:
    """Return a sentence that names a shape, with or without its size and its texture."""
    size, texture, color, kind = look
    words = [size] if rng.random() < 0.5 else []
    words += [texture] if texture != "solid" and rng.random() < 0.5 else []
    words.append(color)
    article = "an" if words[0] == "orange" else "a"
    return " ".join(["there is", article, *words, f"{kind}."])
