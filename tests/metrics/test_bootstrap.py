"""Bootstrap intervals against scoring every sample from scratch and against theory."""

import math

import numpy as np
import pytest

from captioner.errors import InputError
from captioner.metrics.bootstrap import Interval, differences, intervals, resample
from captioner.metrics.captions import Scores, compute_scores
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


def test_a_sample_scores_the_same_as_its_images_scored_from_scratch() -> None:
    scores = compute_scores(CAPTIONS, REFERENCES)
    drawn = resample(scores, 20, seed=3)
    assert list(drawn) == list(scores.corpus)
    generator = np.random.default_rng(3)
    ids = list(CAPTIONS)
    for number in range(20):
        chosen = [ids[i] for i in generator.integers(5, size=5)]
        captions = {place: CAPTIONS[id] for place, id in enumerate(chosen)}
        references = {place: REFERENCES[id] for place, id in enumerate(chosen)}
        expected = compute_scores(captions, references, ["bleu", "rouge-l"]).corpus
        for name, value in expected.items():
            assert drawn[name][number] == pytest.approx(value, abs=1e-9)
        # CIDEr keeps the document frequencies of all images.
        per_image = dict(zip(ids, scores.per_image["CIDEr"], strict=True))
        mean = sum(per_image[id] for id in chosen) / 5
        assert drawn["CIDEr"][number] == pytest.approx(mean, abs=1e-9)


def mean_scores(values: np.ndarray) -> Scores:
    """Scores of a metric that is the mean of `values`."""
    counts = np.stack([values, np.ones(len(values))], 1)
    statistics = SufficientStatistics(("S",), counts, lambda sums: sums[..., :1] / sums[..., 1:])
    return Scores(tuple(range(len(values))), {"s": statistics})


def test_the_interval_of_a_mean_has_the_width_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = intervals(mean_scores(values), 4000)["S"]
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1)
    assert intervals(mean_scores(values), 100) == intervals(mean_scores(values), 100)
    assert intervals(mean_scores(values), 100) != intervals(mean_scores(values), 100, seed=1)


def test_a_difference_uses_the_same_images_on_both_sides_of_every_sample() -> None:
    values = np.random.default_rng(0).normal(50, 10, 400)
    found = differences(mean_scores(values + 1), mean_scores(values), 200)["S"]
    assert (found.value, found.low, found.high) == pytest.approx((1, 1, 1))  # in every sample
    other = np.random.default_rng(1).normal(50, 10, 400)
    found = differences(mean_scores(values), mean_scores(other), 4000)["S"]
    half = 1.96 * (values - other).std() / 20
    assert found.high - found.low == pytest.approx(2 * half, abs=0.2)
    assert found.value == pytest.approx((values - other).mean())


def test_an_interval_formats_its_three_numbers() -> None:
    assert f"{Interval(1.234, -0.5, 3):+.2f}" == "+1.23 (-0.50 to +3.00)"


def test_sample_counts_below_one_and_other_images_are_refused() -> None:
    scores = compute_scores(CAPTIONS, REFERENCES, ["rouge-l"])
    with pytest.raises(InputError, match="samples must be at least 1, got 0"):
        intervals(scores, 0)
    reordered = {id: CAPTIONS[id] for id in reversed(CAPTIONS)}
    with pytest.raises(InputError, match="require scores of the same images in the same order"):
        differences(scores, compute_scores(reordered, REFERENCES, ["rouge-l"]), 10)
