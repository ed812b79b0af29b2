"""Scores of classes against scikit-learn, and bootstrap intervals against plain resampling."""

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from captioner.errors import InputError
from captioner.metrics.confusion import ClassScores, majority

NAMES = ("-1", "-0.5", "0", "0.5", "1")


@pytest.fixture(params=[5, 4, 2], ids=["all classes", "a class never occurs", "two classes"])
def scores(request):
    generator = np.random.default_rng(request.param)
    truth, predicted = generator.integers(0, request.param, (2, 60))
    return ClassScores(truth, predicted, np.arange(60) // 3, NAMES)


def test_scores_are_those_of_scikit_learn(scores):
    truth, predicted = scores.truth, scores.predicted
    assert scores.accuracy == accuracy_score(truth, predicted)
    assert scores.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    table = confusion_matrix(truth, predicted, labels=range(5))
    assert (scores.confusion == table).all()
    present = np.unique(truth)
    recalls = recall_score(truth, predicted, labels=present, average=None)
    assert scores.recalls[present] == pytest.approx(recalls)
    assert np.isnan(np.delete(scores.recalls, present)).all()


def test_a_class_that_is_predicted_but_never_true_has_an_f1_of_0():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    scores = ClassScores(truth, predicted, np.arange(4), NAMES)
    assert scores.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert scores.macro_f1 == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_the_majority_is_that_of_scikit_learn(scores):
    found = majority(scores.truth, scores.groups, NAMES)
    dummy = DummyClassifier(strategy="most_frequent").fit(scores.truth[:, None], scores.truth)
    assert (found.predicted == dummy.predict(scores.truth[:, None])).all()
    assert found.accuracy == np.bincount(scores.truth).max() / 60


def test_the_interval_resamples_groups():
    generator = np.random.default_rng(0)
    truth = np.zeros(400, int)
    predicted = np.repeat(generator.integers(0, 2, 100), 4)  # items of a group are all alike
    grouped = ClassScores(truth, predicted, np.arange(400) // 4, NAMES).interval
    single = ClassScores(truth, predicted, np.arange(400), NAMES).interval
    assert grouped.value == single.value == (predicted == 0).mean()
    widths = [interval.high - interval.low for interval in (grouped, single)]
    error = (grouped.value * (1 - grouped.value)) ** 0.5
    assert widths[0] == pytest.approx(2 * 1.96 * error / 100**0.5, rel=0.1)
    assert widths[1] == pytest.approx(2 * 1.96 * error / 400**0.5, rel=0.1)


def test_differences_are_paired(scores):
    assert scores.difference(scores).high == scores.difference(scores).low == 0
    perfect = ClassScores(scores.truth, scores.truth, scores.groups, NAMES)
    difference = perfect.difference(scores)
    assert difference.value == pytest.approx(1 - scores.accuracy)
    assert difference.low <= difference.value <= difference.high
    other = ClassScores(scores.truth[::-1], scores.truth, scores.groups, NAMES)
    with pytest.raises(InputError, match="paired differences need scores of the same items"):
        perfect.difference(other)


def test_the_description_has_the_counts():
    scores = ClassScores(np.array([0, 0, 4]), np.array([0, 4, 4]), np.arange(3), NAMES)
    lines = scores.describe().splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["-1", "1", "0", "0", "0", "1", "0.500"],
        ["1", "0", "0", "0", "0", "1", "1.000"],
    ]
