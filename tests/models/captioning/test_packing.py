"""The order of the words in training: without padding, by step, longest captions first."""

import torch

from captioner.models.captioning.packing import PackedCaptions
from captioner.text.collate import pad_captions

# Two images; captions of 2, 1 and 3 words after the start token, the end token included.
TOKENS = pad_captions([[[1, 5, 2], [1, 2]], [[1, 6, 7, 2]]])


def test_the_words_of_a_step_follow_those_of_the_step_before():
    packed = PackedCaptions(TOKENS)
    words = TOKENS[..., 1:]
    assert packed.counts == [3, 2, 1]
    assert packed.order.tolist()[:3] == [2, 0, 1]  # the others are padding
    assert packed.pick(words).tolist() == [6, 5, 2, 7, 2, 2]
    assert torch.equal(packed.unpack(packed.pick(words), words), words)


def test_rows_are_grouped_by_image_and_back():
    steps = list(PackedCaptions(TOKENS).steps())
    assert [(step.images, step.per_image) for step in steps] == [(2, 2), (2, 1), (2, 1)]
    rows = torch.tensor([[3.0], [1.0], [2.0]])
    grouped = steps[0].by_image(rows)
    assert grouped[..., 0].tolist() == [[1, 2], [3, 0]]
    assert torch.equal(steps[0].rows_of(grouped), rows)
    assert steps[1].by_image(rows[:2])[..., 0].tolist() == [[1], [3]]
    assert steps[2].by_image(rows[:1])[..., 0].tolist() == [[0], [3]]


def test_trailing_steps_of_padding_are_left_out():
    wider = torch.nn.functional.pad(TOKENS, (0, 2, 0, 1))
    packed = PackedCaptions(wider)
    assert packed.counts == [3, 2, 1]
    assert packed.pick(wider[..., 1:]).tolist() == [6, 5, 2, 7, 2, 2]
