"""The benchmark of linking models of the demo data, with a linker that knows the scenes."""

import numpy as np
import pytest

from benchmarks.joint_demo import RELATIONS, attributes, has, subtract, swaps, told_apart
from captioner.data.demo.shapes import COLORS, KINDS, DrawnShape
from captioner.retrieval.query import parse, weighted_sum

WORDS = list(attributes())


def shape(kind, color, texture="solid"):
    return DrawnShape(kind, color, "small", texture, (0, 0, 9, 9))


class WordLinker:
    """Embeds a query as the sum of one axis per attribute, and a sentence as order of words."""

    def encode_query(self, query):
        parsed = parse(query)
        rows = np.stack([np.eye(len(WORDS))[WORDS.index(term.text)] for term in parsed.terms])
        return weighted_sum(rows, parsed)

    def encode_texts(self, texts):
        return np.array([[text.split().index("red"), 1.0] for text in texts])


def test_a_linker_that_knows_attributes_subtracts_them():
    scenes = [[shape(kind, color)] for kind in KINDS for color in COLORS] * 2
    rows = np.array([[float(has(scene, word)) for word in WORDS] for scene in scenes])
    found = subtract(WordLinker(), rows, scenes)
    assert (found.queries, found.subtracted) == (2 * 6 * 6 + 12 * 2, 1.0)
    assert 0.5 < found.alone < 1


def test_captions_are_swapped_around_their_relation():
    captions = ["a red star to the left of a heart", "a star and a heart", "a cross above a star"]
    assert list(swaps(captions, RELATIONS["left"])) == [
        (captions[0], "a heart to the left of a red star")
    ]
    assert list(swaps(captions, RELATIONS["above"])) == [(captions[2], "a star above a cross")]


def test_the_share_of_true_captions_above_swapped_ones():
    rows = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    captions = [["red to the left of blue"], ["red to the left of blue"], ["blue and red"]]
    count, share = told_apart(WordLinker(), rows, captions, RELATIONS["left"])
    assert (count, share) == (2, pytest.approx(0.5))
