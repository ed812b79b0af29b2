"""Scores of label maps against masks and against the demo's shapes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from captioner.data.demo.dataset import write_demo
from captioner.data.readers import load_data
from captioner.metrics.segmentation import segmentation
from captioner.tasks.linking.segments import SegmentScores, score_demo

GRID = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two test scenes of the demo."""
    root = tmp_path_factory.mktemp("demo") / "demo"
    write_demo(root, train=2, val=1, test=2)
    return load_data(root, None, root)


def dark_linker(unknown=()):
    """A linker whose maps are below every threshold, with a peak in the first cell."""

    def label_maps(images, words):
        maps = np.zeros((len(images), len(words), GRID, GRID), np.float32)
        maps[..., 0, 0] = 0.1
        return maps

    return SimpleNamespace(
        label_maps=label_maps,
        texts=SimpleNamespace(unknown_words=lambda text: [w for w in [text] if w in unknown]),
        model=SimpleNamespace(encoder=SimpleNamespace(offset=0.0)),
    )


def with_captions(data, *captions):
    """The data set with these captions of each test image."""
    tests = iter(captions)
    examples = tuple(
        replace(example, captions=next(tests)) if example.split == "test" else example
        for example in data.examples
    )
    return replace(data, examples=examples)


def test_images_whose_captions_name_no_shape_count_for_the_masks_only(data):
    both = score_demo(dark_linker(), data, "test", 0.5)
    nothing = score_demo(dark_linker(), with_captions(data, ("a picture",), ()), "test", 0.5)
    assert both.pointing.count > 0
    assert nothing.pointing.count == 0
    assert np.array_equal(nothing.masks.confusion, both.masks.confusion)
    assert "pointing" not in nothing.content
    assert "pointing" in both.content
    assert len(nothing.describe().splitlines()) == 1

    one = score_demo(dark_linker(), with_captions(data, ("a picture",), ("a heart",)), "test", 0.5)
    assert one.pointing.count == 1


def test_a_model_that_lacks_a_name_is_not_scored(data):
    assert score_demo(dark_linker(unknown=("hearts",)), data, "test", 0.5) is None


def test_classes_that_do_not_occur_are_not_counted():
    true, predicted = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    some = SegmentScores(("dog", "cat"), segmentation(predicted, true, 3), 0.8)
    assert some.masks.mean_iou == pytest.approx((1 / 2 + 2 / 3) / 2)  # without the cat
    assert some.describe() == (
        "masks: mean IoU 0.583 over the 2 of 3 classes that occur, including the background; micro "
        "IoU 0.667 without it; threshold 0.8"
    )
    every = SegmentScores(("dog",), segmentation(predicted, true, 2), 0.8)
    assert every.describe().startswith("masks: mean IoU 0.583 over 2 classes, including the back")
