"""Losses of pairs within a batch against loops over pairs."""

import math

import pytest
import torch

from captioner.models.linking.contrastive import (
    choose_negatives,
    hardest_hinges,
    info_nce,
    relative_loss,
    sum_of_hinges,
)

IMAGE_OF_TEXT = torch.tensor([2, 0, 0, 3, 2, 0])  # image 1 has no text


def tiny_scores():
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(3)).double()


def wrong_pairs(scores):
    """For each text, the scores of its image, of other images, and of other images' texts."""
    owners = IMAGE_OF_TEXT.tolist()
    for n, own in enumerate(owners):
        images = [float(scores[i, n]) for i in range(4) if i != own]
        texts = [float(scores[own, m]) for m in range(6) if owners[m] != own]
        yield float(scores[own, n]), images, texts


@pytest.mark.parametrize("loss", [info_nce, sum_of_hinges, hardest_hinges])
def test_equal_texts_of_other_images_are_no_negatives(loss):
    """Without text 3 and image 3, whose text equals text 1, the loss of the others is the same."""
    margin = () if loss is info_nce else (0.5,)
    scores, owners = tiny_scores()[[0, 2, 3]], torch.tensor([1, 0, 0, 2, 1, 0])
    own = torch.arange(3)[:, None] == owners
    own[2, 1] = own[0, 3] = True
    changed = scores.clone()
    changed[2, 1], changed[0, 3] = 90.0, 90.0
    gap = loss(changed, owners, *margin, own) - loss(scores, owners, *margin, own)
    assert gap.item() == pytest.approx(0)
    assert loss(changed, owners, *margin) > loss(scores, owners, *margin) + 10


def test_info_nce_is_cross_entropy_among_other_images_and_their_texts():
    scores = tiny_scores()
    expected = 0.0
    for right, images, texts in wrong_pairs(scores):
        for others in (images, texts):
            total = sum(math.exp(score) for score in [right, *others])
            expected += (math.log(total) - right) / 2
    assert info_nce(scores, IMAGE_OF_TEXT).item() == pytest.approx(expected)


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.5])
def test_hinges_are_summed_over_all_wrong_pairs_or_the_hardest(margin):
    scores = tiny_scores()
    pairs = list(wrong_pairs(scores))
    every = sum(
        max(0.0, margin - right + wrong)
        for right, *both in pairs
        for side in both
        for wrong in side
    )
    hardest = sum(max(0.0, margin - right + max(side)) for right, *both in pairs for side in both)
    assert sum_of_hinges(scores, IMAGE_OF_TEXT, margin).item() == pytest.approx(every)
    assert hardest_hinges(scores, IMAGE_OF_TEXT, margin).item() == pytest.approx(hardest)


def test_a_collapsed_model_has_the_loss_of_the_margin():
    """All scores equal: the hardest hinges are twice the margin per text (VSE++'s plateau)."""
    owners = torch.arange(6).repeat_interleave(2)
    found = hardest_hinges(torch.zeros(6, 12), owners, 0.2)
    assert found.item() == pytest.approx(2 * 12 * 0.2)


@pytest.mark.parametrize(("hinges", "pairs"), [(sum_of_hinges, 5 + 10), (hardest_hinges, 1 + 1)])
def test_the_relative_loss_is_1_for_equal_scores(hinges, pairs):
    """6 images with 2 texts: a text has 5 wrong images, and its image has 10 wrong texts."""
    owners = torch.arange(6).repeat_interleave(2)

    def loss(scores):
        return hinges(scores, owners, 0.2)

    equal, others = torch.full((6, 12), 0.3), torch.rand(6, 12)
    assert loss(equal).item() == pytest.approx(pairs * 12 * 0.2)
    assert relative_loss(loss, equal, loss(equal)).item() == pytest.approx(1)
    expected = loss(others).item() / (pairs * 12 * 0.2)
    assert relative_loss(loss, others, loss(others)).item() == pytest.approx(expected)


def test_negatives_are_drawn_evenly_among_those_of_each_text():
    """Image 1 has no own text; text 3 is also equal to a text of images 0 and 1."""
    own = torch.arange(4)[:, None] == IMAGE_OF_TEXT
    own[:2, 3] = True
    assert choose_negatives(own, None).equal(~own)
    assert choose_negatives(own, 4).equal(~own)
    torch.manual_seed(5)
    drawn = torch.stack([choose_negatives(own, 2) for _ in range(600)])
    assert not (drawn & own).any()
    assert (drawn.sum(1) == torch.minimum((~own).sum(0), torch.tensor(2))).all()
    expected = (~own) * (2 / (~own).sum(0)).clamp_max(1)
    torch.testing.assert_close(drawn.float().mean(0), expected, atol=0.08, rtol=0)
