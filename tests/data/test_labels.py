"""Labels of images from captions and tags, and the labels that are held out."""

from pathlib import Path

import numpy as np
import pytest

from captioner.data.dataset import Example
from captioner.data.labels import (
    ImageLabels,
    LabelSplit,
    caption_words,
    choose_labels,
    exclude_relatives,
    image_labels,
    load_labels,
    split_labels,
    tag_words,
)
from captioner.errors import InputError


def example(*captions, name="a.jpg"):
    return Example(name, Path("photos") / name, captions, "train")


@pytest.mark.parametrize(
    ("uses", "captions", "present"),
    [
        *((1, 1, True), (1, 2, True), (1, 3, False), (2, 3, True), (1, 4, False), (2, 4, True)),
        *((1, 5, False), (2, 5, True), (2, 10, True)),
    ],
)
def test_enough_captions_must_use_a_word(uses, captions, present):
    texts = ["A dog." if i < uses else "the sky" for i in range(captions)]
    ((found, unclear),) = caption_words([example(*texts)])
    assert ("dog" in found) == present
    assert ("dog" in unclear) == (not present)
    assert not {"a", "the"} & (found | unclear)


def test_labels_are_frequent_and_known():
    words = caption_words([example("red dog"), example("red cat"), example("red dog")])
    assert choose_labels(words, 2, lambda _: True) == ["red", "dog"]
    assert choose_labels(words, 1, lambda word: word != "red") == ["dog", "cat"]
    with pytest.raises(InputError, match="2 labels that occur in at least 3 images, got 1; lower"):
        choose_labels(words, 3, lambda _: True)
    with pytest.raises(InputError, match="at least 2 images and have a vector, got 1; choose"):
        choose_labels(words, 2, lambda word: word != "red")


def test_indices_of_present_and_unclear_labels():
    words = caption_words([example("a red dog", "red", "red cat"), example("blue")])
    labels = image_labels(words, ["cat", "red", "blue"])
    assert [ids.tolist() for ids in labels.present] == [[1], [2]]
    assert [ids.tolist() for ids in labels.unclear] == [[0], []]
    np.testing.assert_array_equal(labels.mentioned(), [[True, True, False], [False, False, True]])


def test_a_share_is_held_out_with_related_words():
    names = [f"{word}{ending}" for word in ("dog", "cat", "bird", "fish") for ending in ("", "s")]
    names += [f"word{chr(97 + i)}x" for i in range(12)]
    for seed in range(5):
        labels = split_labels(names, 0.2, seed)
        assert sorted(labels.names) == sorted(names)
        assert 3 <= len(labels.held_out) <= 4
        for word in ("dog", "cat", "bird"):
            assert (word in labels.held_out) == (f"{word}s" in labels.held_out)
    assert split_labels(names, 0.2, 1) == split_labels(names, 0.2, 1)
    assert len({split_labels(names, 0.2, seed).held_out for seed in range(5)}) > 1
    assert split_labels(names, 0.0, 0).held_out == ()


def test_tags_by_name_with_or_without_directories():
    tags = {"photos/a.jpg": {"dog"}, "b.jpg": {"black cat"}}
    examples = [example("x", name=name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    found = tag_words(examples, tags)
    assert [set(present) for present, _ in found] == [{"dog"}, {"black cat"}, set()]
    assert not any(unclear for _, unclear in found)


def test_labels_are_saved_and_loaded(tmp_path):
    labels = LabelSplit(("dog", "été"), ("cat",))
    labels.save(tmp_path)
    assert load_labels(tmp_path) == labels
    for content in (
        "[]",
        "{}",
        '{"seen": [1], "held_out": []}',
        '{"seen": [], "held_out": []}',
        "x",
    ):
        (tmp_path / "labels.json").write_text(content)
        with pytest.raises(InputError, match=r"labels.json cannot be read: .*; copy or download"):
            load_labels(tmp_path)


def test_other_forms_of_present_words_are_unclear():
    names = ("star", "red", "stars", "runs", "running")
    present, unclear = (np.array([0, 1]), np.array([3, 4])), (np.array([3]), np.array([], int))
    found = exclude_relatives(ImageLabels(names, present, unclear))
    assert found.present == present
    assert [each.tolist() for each in found.unclear] == [[2, 3, 4], []]
