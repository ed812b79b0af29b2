"""Retrieval scores against loops over queries and answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import InputError
from captioner.metrics.retrieval import pair_accuracy, retrieval_scores


def naive_numbers(scores, image_of_text, groups=None):
    """Scores by name: sort the answers of each query, wrong ones first among equals."""
    groups = range(len(image_of_text)) if groups is None else groups
    pairs = {(image, group) for image, group in zip(image_of_text, groups, strict=True)}

    def ranks(rows, is_right):
        for query, row in enumerate(rows):
            answers = sorted((-score, is_right(query, answer)) for answer, score in enumerate(row))
            hits = [rank for rank, (_, right) in enumerate(answers) if right]
            if hits:
                yield hits[0]

    numbers = {}
    for name, rows, is_right in (
        ("i2t", scores.tolist(), lambda image, text: (image, groups[text]) in pairs),
        ("t2i", scores.T.tolist(), lambda text, image: (image, groups[text]) in pairs),
    ):
        found = sorted(ranks(rows, is_right))
        for k in (1, 5, 10):
            numbers[f"{name}_R@{k}"] = 100 * sum(rank < k for rank in found) / len(found)
        middle = [found[(len(found) - 1) // 2], found[len(found) // 2]]
        numbers[f"{name}_MedR"] = sum(middle) // 2 + 1
    numbers["rsum"] = sum(numbers[f"{name}_R@{k}"] for name in ("i2t", "t2i") for k in (1, 5, 10))
    return numbers


@st.composite
def problems(draw):
    """Scores with many ties, and images with several texts, one or none."""
    images, texts = draw(st.integers(1, 14)), draw(st.integers(1, 25))
    image_of_text = draw(st.lists(st.integers(0, images - 1), min_size=texts, max_size=texts))
    seed, values = draw(st.integers(0, 1000)), draw(st.sampled_from([1, 3, 1000]))
    scores = np.random.default_rng(seed).integers(values, size=(images, texts)) - values / 2
    return scores, np.array(image_of_text)


@given(problems())
def test_numbers_match_sorted_answers(problem):
    scores, image_of_text = problem
    found = retrieval_scores(scores, image_of_text, "val").numbers
    assert found == pytest.approx(naive_numbers(scores, image_of_text))


@given(problems(), st.integers(0, 1000))
def test_equal_texts_of_other_images_count_as_correct(problem, seed):
    scores, image_of_text = problem
    groups = np.random.default_rng(seed).integers(6, size=len(image_of_text)) * 7
    found = retrieval_scores(scores, image_of_text, "val", groups)
    assert found.numbers == pytest.approx(naive_numbers(scores, image_of_text, groups.tolist()))
    assert found.protocol.endswith("; equal texts of other images count as correct")


def test_chance_is_the_mean_recall_of_random_orders():
    image_of_text = np.array([0, 0, 1, 2, 2, 2, 4, 4])  # image 3 has no text
    groups = np.array([0, 1, 1, 2, 3, 4, 0, 5])
    rng = np.random.default_rng(0)
    for given_groups in (None, groups):
        drawn = [
            retrieval_scores(rng.random((5, 8)), image_of_text, "val", given_groups)
            for _ in range(3000)
        ]
        for name, expected in drawn[0].chance.items():
            mean = np.mean([one.numbers[name] for one in drawn])
            assert mean == pytest.approx(expected, abs=1.5), name
        assert drawn[0].chance["t2i_R@5"] == 100


def test_ranks_of_ragged_texts_by_hand():
    scores = np.array([[0.9, 0.2, 0.9, 0.1], [0.8, 0.7, 0.5, 0.0], [0.3, 0.8, 0.4, 0.1]])
    found = retrieval_scores(scores, np.array([0, 2, 2, 2]), "test")
    assert found.image_to_text.tolist() == [1, 0]  # image 0 ties with text 2; image 1 has no text
    assert found.text_to_image.tolist() == [0, 0, 2, 1]  # for text 3 images 0 and 2 are tied
    assert found.describe().splitlines() == [
        "image to text: R@1 50.0  R@5 100.0  R@10 100.0 (by chance 100.0)  MedR 1",
        "text to image: R@1 50.0  R@5 100.0  R@10 100.0 (by chance 100.0)  MedR 1",
        "rsum 500.0",
        "test: 3 images (1 without a text), 4 texts, ranked all at once; ties count as wrong",
    ]


def test_a_constant_score_is_worst_and_a_perfect_one_best():
    image_of_text = np.repeat(np.arange(20), 5)
    constant = retrieval_scores(np.zeros((20, 100)), image_of_text, "test")
    assert constant.numbers["rsum"] == 0
    assert constant.numbers["t2i_MedR"] == 20
    assert constant.numbers["i2t_MedR"] == 96
    perfect = np.arange(20)[:, None] == image_of_text
    found = retrieval_scores(perfect, image_of_text, "test")
    assert found.numbers["rsum"] == 600
    assert found.protocol == "test: 20 images, 100 texts, ranked all at once; ties count as wrong"


@pytest.mark.parametrize(
    ("scores", "image_of_text", "message"),
    [
        (
            np.zeros((2, 3)),
            [0, 1],
            r"^scores must have shape .* \(2, 3\) and \(2,\)$",
        ),
        (np.zeros(3), [0, 1, 1], "^scores must have shape .* got"),
        (np.zeros((2, 0)), [], "both nonempty"),
        (np.full((1, 2), np.nan), [0, 0], "must be finite, got NaN or infinity"),
        (np.zeros((2, 2)), [0.0, 1.0], "image_of_text must contain integers, got float64"),
        (np.zeros((2, 2)), [0, 2], "image_of_text must contain indices from 0 to 1, got 0 to 2"),
        (np.zeros((2, 2)), [-1, 0], "image_of_text must contain indices from 0 to 1, got -1 to 0"),
    ],
)
def test_bad_input_is_refused(scores, image_of_text, message):
    with pytest.raises(InputError, match=message):
        retrieval_scores(scores, np.array(image_of_text), "test")


def test_scores_that_differ_by_rounding_tie():
    scores = np.array([[0.5, 0.5 - 1e-7], [0.2, 0.5 - 2e-6]])
    owners = np.array([0, 1])
    exact = retrieval_scores(scores, owners, "val").numbers
    assert exact["i2t_R@1"] == 100
    close = retrieval_scores(scores, owners, "val", tolerance=1e-6).numbers
    assert (close["i2t_R@1"], close["t2i_R@1"]) == (50, 50)


@given(problems())
def test_pair_accuracy_is_the_share_of_wrong_texts_below_the_right_one(problem):
    scores, image_of_text = problem
    shares = []
    for text, image in enumerate(image_of_text.tolist()):
        wrong = [scores[image, n] for n, own in enumerate(image_of_text.tolist()) if own != image]
        if not wrong:
            assert pair_accuracy(scores, image_of_text) is None
            return
        shares.append(sum(score < scores[image, text] for score in wrong) / len(wrong))
    assert pair_accuracy(scores, image_of_text) == pytest.approx(sum(shares) / len(shares))
