"""Intervals of corpus scores, against scoring every sample anew and against theory."""

import math

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.metrics.bootstrap import Interval, differences, intervals, resample
from captioner.metrics.captions import Scores, measure
from captioner.metrics.statistics import SufficientStatistics

CAPTIONS = {
    1: "a dog runs over the grass",
    2: "two men ride bikes",
    3: "a cat",
    4: "a child in a red coat jumps",
    5: "the man looks at the sea",
}
REFERENCES = {
    1: ["a dog is running over green grass", "a brown dog runs over the grass"],
    2: ["two men ride their bikes", "two people ride bikes"],
    3: ["a white cat lies on a bed", "the cat sleeps"],
    4: ["a child in a red coat is jumping", "a girl jumps"],
    5: ["a man looks at the sea", "someone at the beach"],
}


def test_a_sample_scores_what_its_images_score_together() -> None:
    scores = measure(CAPTIONS, REFERENCES)
    drawn = resample(scores, 20, seed=3)
    assert list(drawn) == list(scores.corpus)
    generator = np.random.default_rng(3)
    ids = list(CAPTIONS)
    for number in range(20):
        chosen = [ids[i] for i in generator.integers(5, size=5)]
        captions = {place: CAPTIONS[id] for place, id in enumerate(chosen)}
        references = {place: REFERENCES[id] for place, id in enumerate(chosen)}
        anew = measure(captions, references, ["bleu", "rouge-l"]).corpus
        for name, value in anew.items():
            assert drawn[name][number] == pytest.approx(value, abs=1e-9)
        each = dict(zip(ids, scores.per_image["CIDEr"], strict=True))  # words as rare as in all
        mean = sum(each[id] for id in chosen) / 5
        assert drawn["CIDEr"][number] == pytest.approx(mean, abs=1e-9)


def of_means(values: np.ndarray) -> Scores:
    counts = np.stack([values, np.ones(len(values))], 1)
    tally = SufficientStatistics(("S",), counts, lambda sums: sums[..., :1] / sums[..., 1:])
    return Scores(tuple(range(len(values))), {"s": tally})


def test_an_interval_of_means_is_as_wide_as_it_must_be() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = intervals(of_means(values), 4000)["S"]
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1)
    assert intervals(of_means(values), 100) == intervals(of_means(values), 100)
    assert intervals(of_means(values), 100) != intervals(of_means(values), 100, seed=1)


def test_a_difference_is_of_the_same_images_in_every_sample() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = differences(of_means(values + 1), of_means(values), 200)["S"]
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))  # whatever is drawn
    other = np.random.default_rng(1).normal(50, 10, 400)
    found = differences(of_means(values), of_means(other), 4000)["S"]
    half = 1.96 * (values - other).std() / 20
    assert found.high - found.low == pytest.approx(2 * half, abs=0.2)
    assert found.value == pytest.approx((values - other).mean())


def test_how_an_interval_is_written() -> None:
    assert f"{Interval(1.234, -0.5, 3):+.2f}" == "+1.23 (-0.50 to +3.00)"


def test_what_cannot_be_drawn() -> None:
    scores = measure(CAPTIONS, REFERENCES, ["rouge-l"])
    with pytest.raises(InputError, match="bootstrap must draw at least 1 sample, got 0"):
        intervals(scores, 0)
    turned = {id: CAPTIONS[id] for id in reversed(CAPTIONS)}
    with pytest.raises(InputError, match="two scores of the same images in one order"):
        differences(scores, measure(turned, REFERENCES, ["rouge-l"]), 10)
