"""RelationClassifier: predictions, expected values, unknown words and errors."""

import numpy as np
import pytest
from PIL import Image

from captioner import InputError, Linker, RelationClassifier
from captioner.data.readers import read_captions
from captioner.data.sources import ImageSource
from captioner.models.relation.options import Head
from captioner.relation import group_rows, predict, word_support
from captioner.tasks.relation.scores import read_split
from tests.support import linking, relation, spatial
from tests.support.tiny import COLOURS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return relation.run(tmp_path_factory)


@pytest.fixture(scope="module")
def classifier(run):
    return RelationClassifier.from_pretrained(run, "cpu")


def plain(colour):
    return Image.new("RGB", (24, 24), COLOURS[colour])


def test_every_head_has_a_prediction(classifier):
    found = classifier.relate(plain("red"), "It is red. One sees red here.")
    assert list(found.labels) == ["cmi", "sc"]
    assert list(found["cmi"].probabilities) == [0, 0.5, 1]
    assert list(found["sc"].probabilities) == [-1, 1]
    for prediction in found.labels.values():
        shares = prediction.probabilities
        assert sum(shares.values()) == pytest.approx(1)
        assert prediction.value == max(shares, key=shares.get)
        assert prediction.expected == pytest.approx(sum(k * v for k, v in shares.items()))
    assert found.unknown_words == ()


def test_true_sentences_share_more_than_false_ones(classifier):
    right = wrong = 0
    for colour, other in zip(COLOURS, [*COLOURS][3:] + [*COLOURS][:3], strict=True):
        true = classifier.relate(plain(colour), f"It is {colour}. One sees {colour} here.")
        false = classifier.relate(plain(colour), f"It is {other}. One sees {other} here.")
        right += true["cmi"].expected > false["cmi"].expected
        wrong += true["cmi"].expected < false["cmi"].expected
    assert right > wrong + 3


def test_a_prediction_is_that_of_the_batch(classifier, tmp_path_factory):
    examples = read_captions(relation.data(tmp_path_factory)).split("val")
    own = read_split(examples, classifier.reader, classifier.heads)
    images = ImageSource([example.path for example in examples], classifier.transform)
    rows = [1, 4, 20, 21, 50]
    probabilities = classifier.classify(images, own.store, own.image_of_text, rows)
    texts = [text for example in examples for text in example.captions]
    for number, row in enumerate(rows):
        path = examples[own.image_of_text[row]].path
        found = classifier.relate(path, texts[row])
        for name, values in zip(("cmi", "sc"), probabilities, strict=True):
            assert list(found[name].probabilities.values()) == pytest.approx(
                values[number].tolist(), abs=1e-5
            )


def test_images_can_be_exchanged(classifier, tmp_path_factory):
    examples = read_captions(relation.data(tmp_path_factory)).split("val")
    own = read_split(examples, classifier.reader, classifier.heads)
    images = ImageSource([example.path for example in examples], classifier.transform)
    order = np.roll(np.arange(len(examples)), 1)
    swapped = ImageSource([examples[i].path for i in order], classifier.transform)
    rows = list(range(12))
    found = classifier.embed(images, own.store, own.image_of_text, rows, order)
    expected = classifier.embed(swapped, own.store, own.image_of_text, rows)
    assert np.allclose(found, expected, atol=1e-6)


def test_unknown_words_are_named(classifier):
    assert classifier.relate(plain("red"), "It is a red zebra!").unknown_words == ("a", "zebra")


@pytest.mark.parametrize("text", ["", "...", "zebra", 7])
def test_texts_that_are_refused(classifier, text):
    with pytest.raises(InputError, match=r"a text must (contain at least one known word|be a str)"):
        classifier.relate(plain("red"), text)


def test_images_and_checkpoints_that_are_refused(classifier, tmp_path, tmp_path_factory):
    with pytest.raises(InputError, match="gone"):
        classifier.relate(tmp_path / "gone.jpg", "It is red.")
    with pytest.raises(InputError, match="was trained for 'linear', not 'relation'"):
        RelationClassifier.from_pretrained(linking.run(tmp_path_factory))
    with pytest.raises(InputError, match=r"was trained for 'relation', not linking"):
        Linker.from_pretrained(relation.run(tmp_path_factory))


def test_the_expected_value_is_the_mean_of_the_levels():
    found = predict(Head("x", (-1.0, 0.0, 2.0)), np.array([0.5, 0.2, 0.3]))
    assert (found.value, found.expected) == (-1.0, pytest.approx(0.1))


def test_rows_are_grouped_by_image():
    owner = np.array([0, 0, 1, 2, 2, 2])
    assert group_rows([0, 2, 3, 5], owner) == [(0, [0]), (1, [2]), (2, [3, 5])]


def test_content_words_that_the_image_supports(tmp_path_factory):
    linker = Linker.from_pretrained(spatial.run(tmp_path_factory), "cpu")
    image = spatial.data(tmp_path_factory) / "val" / "100-red-green.png"
    found = word_support(linker, image, "A red zebra, and the red or green or blue!")
    assert list(found) == ["red", "green", "blue"]
    assert found["blue"] < min(found["red"], found["green"])
    assert word_support(linker, image, "the zebra") == {}
    with pytest.raises(InputError, match="use a model trained with --system spatial"):
        word_support(Linker.from_pretrained(linking.run(tmp_path_factory), "cpu"), image, "red")


def test_repr_and_paths(classifier, run):
    assert repr(classifier) == "RelationClassifier(cmi, sc; cpu)"
    with pytest.raises(InputError, match=r"use RelationClassifier.from_pretrained"):
        RelationClassifier(run)
