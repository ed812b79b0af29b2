"""Texts about the demo's scenes whose relation to the image is known exactly.

A sentence names one shape: it is true if the image has a shape with all the attributes that the
sentence states. `cmi` is the share of four sentences that are true. `sc` is 1 if all sentences are
true, -1 if they give one shape of the image a wrong colour, size or texture, and 0 if the image
has none of the kinds of shape that are named. Sentences may be repeated.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..dataset import Example
from ..formats.reading import TextLabels
from ..storage.location import Location
from .dataset import read_shapes
from .shapes import COLORS, KINDS, SIZES, TEXTURES, DrawnShape

SENTENCES = 4  # of a text whose CMI is known
SC_ROUNDS = 2  # texts of each SC value for an image
SOURCE = "demo shapes"
ATTRIBUTES = ("size", "texture", "color")  # that may be wrong

LabelledText = tuple[str, TextLabels]


class Look(NamedTuple):
    """The attributes of a shape."""

    size: str
    texture: str
    color: str
    kind: str


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
    looks = list(dict.fromkeys(Look(s.size, s.texture, s.color, s.kind) for s in shapes))
    kinds = [kind for kind in KINDS if kind not in {look.kind for look in looks}]
    texts = []
    for count in range(SENTENCES + 1):
        named = [_sentence(rng.choice(looks), rng) for _ in range(count)]
        named += [_sentence(_absent_look(looks, rng), rng) for _ in range(SENTENCES - count)]
        texts.append(_text(named, TextLabels({"cmi": count / SENTENCES}, SOURCE), rng))
    for _ in range(SC_ROUNDS):
        count, attribute = rng.randint(1, SENTENCES), rng.choice(ATTRIBUTES)
        wrong = _with_wrong_look(looks, attribute, rng)
        # The other scene has as many looks, so that the text alone does not tell its value.
        colors = rng.sample(tuple(COLORS), len(looks))
        unrelated = [
            _random_look(rng, [kind])._replace(color=color)
            for kind, color in zip(rng.sample(kinds, len(looks)), colors, strict=True)
        ]
        for value, scene in ((1.0, looks), (-1.0, wrong), (0.0, unrelated)):
            first = scene[0] if scene is wrong else rng.choice(scene)
            named = [_sentence(first, rng, attribute)]
            named += [_sentence(rng.choice(scene), rng) for _ in range(count - 1)]
            texts.append(_text(named, TextLabels({"sc": value}, SOURCE), rng))
    return texts


def _random_look(rng: random.Random, kinds: Sequence[str] = KINDS) -> Look:
    return Look(*map(rng.choice, (tuple(SIZES), TEXTURES, tuple(COLORS), kinds)))


def _absent_look(looks: Sequence[Look], rng: random.Random) -> Look:
    """Return the look of a shape whose kind and colour no shape of the image has together."""
    present = {(look.color, look.kind) for look in looks}
    look = _random_look(rng)
    while (look.color, look.kind) in present:
        look = _random_look(rng)
    return look


def _with_wrong_look(looks: Sequence[Look], attribute: str, rng: random.Random) -> list[Look]:
    """Return the looks, one of them first and with an attribute that no shape of its kind has.

    Plain shapes are not called solid, so that a wrong texture is another one.
    """
    position = rng.randrange(len(looks))
    look, others = looks[position], [*looks[:position], *looks[position + 1 :]]
    taken = {getattr(each, attribute) for each in looks if each.kind == look.kind} | {"solid"}
    values = {"size": SIZES, "texture": TEXTURES, "color": COLORS}[attribute]
    wrong = rng.choice([value for value in values if value not in taken])
    return [look._replace(**{attribute: wrong}), *others]


def _text(sentences: list[str], labels: TextLabels, rng: random.Random) -> LabelledText:
    rng.shuffle(sentences)
    return "\n".join(sentences), labels


def _sentence(look: Look, rng: random.Random, stated: str = "") -> str:
    """Return a sentence that names a shape, with or without its size and its texture.

    stated: an attribute that the sentence states in any case.
    """
    words = [look.size] if stated == "size" or rng.random() < 0.5 else []
    if look.texture != "solid" and (stated == "texture" or rng.random() < 0.5):
        words.append(look.texture)
    words.append(look.color)
    article = "an" if words[0] == "orange" else "a"
    return " ".join(["there is", article, *words, f"{look.kind}."])
