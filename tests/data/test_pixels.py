"""Arrays and tensors of every layout, compared with the image that they were made from."""

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.data.images import load_image
from captioner.data.pixels import image_of, reverse_channels

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
GREY = RGB[..., 0]
CHW = RGB.transpose(2, 0, 1)


@pytest.mark.parametrize(
    "given",
    [
        RGB,
        CHW,
        RGB / 255,
        (CHW / 255).astype(np.float32),
        np.asfortranarray(RGB),
        torch.from_numpy(RGB),
        torch.from_numpy(CHW),
        torch.from_numpy(CHW) / 255,
        (torch.from_numpy(RGB) / 255).double().requires_grad_(),
    ],
)
def test_both_layouts_and_float_values(given):
    assert np.array_equal(np.asarray(image_of(given)), RGB)


@pytest.mark.parametrize("given", [GREY, GREY[..., None], GREY[None], GREY / 255])
@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_grey_values_become_three_equal_channels(given, convert):
    loaded = np.asarray(load_image(convert(given)))
    assert np.array_equal(loaded, np.repeat(GREY[..., None], 3, 2))


def test_opacity_is_composited_over_white():
    opaque = np.dstack([RGB, np.full(GREY.shape, 255, np.uint8)])
    opaque[0, :, 3] = 0
    expected = RGB.copy()
    expected[0] = 255
    assert np.array_equal(np.asarray(load_image(opaque)), expected)
    assert np.array_equal(np.asarray(load_image(opaque / 255)), expected)


def test_ambiguous_shapes_follow_the_custom_of_their_type():
    square = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert image_of(square).size == (5, 3)  # (H, W, C)
    assert image_of(torch.from_numpy(square)).size == (3, 5)  # (C, H, W)


def test_float16_and_all_values_of_a_byte_round_trip():
    values = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    assert np.array_equal(np.asarray(image_of(values / 255)), values)
    assert np.array_equal(np.asarray(image_of(torch.from_numpy(values).half() / 255)), values)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_reversed_channels(convert):
    rgba = np.dstack([RGB, GREY])
    for rgb, bgr in (
        (RGB, RGB[..., ::-1].copy()),
        (CHW, CHW[::-1].copy()),
        (np.stack([RGB, RGB // 2]), np.stack([RGB, RGB // 2])[..., ::-1].copy()),
        (np.stack([CHW] * 2), np.stack([CHW] * 2)[:, ::-1].copy()),
        (rgba, rgba[..., [2, 1, 0, 3]]),
        (GREY, GREY),
        (GREY[..., None], GREY[..., None]),
    ):
        assert np.array_equal(reverse_channels(convert(bgr)), rgb)


def test_the_image_shares_no_memory_with_the_array():
    for given in (RGB.copy(), GREY.copy()):
        image_of(given).paste("white" if given.ndim == 3 else 255, (0, 0, 9, 6))
        assert np.array_equal(given, RGB if given.ndim == 3 else GREY)
    assert isinstance(image_of(GREY), Image.Image)
