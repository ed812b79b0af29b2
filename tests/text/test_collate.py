"""Padding of captions to a tensor."""

import torch

from captioner.text.collate import pad_captions


def test_captions_are_padded_in_length_and_number():
    tokens = pad_captions([[[1, 5, 6, 2], [1, 2]], [[1, 7, 2]]])
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [
        [[1, 5, 6, 2], [1, 2, 0, 0]],
        [[1, 7, 2, 0], [0, 0, 0, 0]],
    ]
