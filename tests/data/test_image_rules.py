"""The library follows the image rules of docs/export.md, which are written here in numpy.

The tests write PNG files sample by sample: the expected pixels come from the samples, not from
Pillow.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageChops

from captioner.data.images import Transform, load_image

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's colour types
UPRIGHT = {  # what each orientation means: how the stored image becomes upright
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


def noise(*shape, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape)


def png(path, samples, kind, depth, **chunks):
    """Write samples (H, W) or (H, W, channels) of `depth` bits as a PNG file."""
    height, width = samples.shape[:2]
    bits = samples.reshape(height, -1, 1) >> np.arange(depth)[::-1] & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    chunks = {
        "IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0),
        **chunks,
        "IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        "IEND": b"",
    }
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
            for name, data in chunks.items()
            for body in [name.encode() + data]
        )
    )
    return path


def loaded(path):
    return np.asarray(load_image(path)).astype(int)


def over_white(colours, alpha):
    """c * a / 255 + 255 - a, rounded, for colours (..., 3) and alpha (...)."""
    alpha = alpha[..., None]
    return np.floor(colours * alpha / 255 + 255 - alpha + 0.5).astype(int)


def repeat(grey):
    return np.repeat(grey[..., None], 3, -1)


# ---- orientation --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(11))
def test_orientation_in_exif(tmp_path, orientation):
    stored = noise(5, 7, 3)
    block = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    path = png(tmp_path / "x.png", stored, RGB, 8, eXIf=block)
    np.testing.assert_array_equal(loaded(path), UPRIGHT.get(orientation, UPRIGHT[1])(stored))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_xmp_counts_only_if_exif_has_none(tmp_path, orientation):
    stored = noise(5, 7, 3)
    packet = f'<x:xmpmeta tiff:Orientation="{orientation}"/>'
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + packet.encode()
    path = png(tmp_path / "xmp.png", stored, RGB, 8, iTXt=text)
    np.testing.assert_array_equal(loaded(path), UPRIGHT[orientation](stored))
    block = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 1, 0, 0)
    path = png(tmp_path / "both.png", stored, RGB, 8, iTXt=text, eXIf=block)
    np.testing.assert_array_equal(loaded(path), stored)


# ---- bits, modes and transparency ---------------------------------------------------------------


def test_sixteen_bits(tmp_path):
    """Grey is rounded; of colours, and of grey with alpha, the high byte is used."""
    grey = np.arange(65536).reshape(256, 256)
    rounded = loaded(png(tmp_path / "grey.png", grey, GREY, 16))
    np.testing.assert_array_equal(rounded, repeat((grey + 128) // 257))
    colours = noise(20, 30, 3, high=65536)
    path = png(tmp_path / "colours.png", colours, RGB, 16)
    np.testing.assert_array_equal(loaded(path), colours >> 8)
    pairs = noise(20, 30, 2, high=65536)
    path = png(tmp_path / "pairs.png", pairs, GREY_ALPHA, 16)
    expected = over_white(repeat(pairs[..., 0] >> 8), pairs[..., 1] >> 8)
    np.testing.assert_array_equal(loaded(path), expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_is_repeated(tmp_path, depth):
    grey = noise(9, 13, high=2**depth)
    path = png(tmp_path / "x.png", grey, GREY, depth)
    np.testing.assert_array_equal(loaded(path), repeat(grey * 255 // (2**depth - 1)))


def test_alpha_is_composited_over_white(tmp_path):
    colours, alpha = np.meshgrid(np.arange(256), np.arange(256))
    path = png(tmp_path / "grey.png", np.stack([colours, alpha], -1), GREY_ALPHA, 8)
    np.testing.assert_array_equal(loaded(path), over_white(repeat(colours), alpha))
    four = noise(20, 30, 4)
    path = png(tmp_path / "colours.png", four, RGB_ALPHA, 8)
    np.testing.assert_array_equal(loaded(path), over_white(four[..., :3], four[..., 3]))


def test_alpha_of_a_palette_is_composited_over_white(tmp_path):
    palette, alphas = noise(16, 3), noise(10, seed=1)  # colours 10 to 15 are opaque
    indices = noise(9, 13, high=16)
    chunks = {"PLTE": palette.astype(np.uint8).tobytes(), "tRNS": bytes(alphas.tolist())}
    path = png(tmp_path / "x.png", indices, PALETTE, 4, **chunks)
    alpha = np.concatenate([alphas, np.full(6, 255)])[indices]
    np.testing.assert_array_equal(loaded(path), over_white(palette[indices], alpha))


@pytest.mark.parametrize(
    ("kind", "depth"), [(GREY, 1), (GREY, 8), (GREY, 16), (RGB, 8)], ids=["1", "8", "16", "RGB"]
)
def test_the_transparent_colour_of_a_png_becomes_white(tmp_path, kind, depth):
    few = np.array([0, 1]) if depth == 1 else np.array([3, 77, 128, 200]) * (2**depth // 256)
    samples = few[noise(9, 13, *([3] if kind == RGB else []), high=len(few))]
    key = np.atleast_1d(samples[0, 0])
    path = png(tmp_path / "x.png", samples, kind, depth, tRNS=key.astype(">u2").tobytes())
    keyed = (samples == key).all(-1) if kind == RGB else samples == key
    colours = samples if kind == RGB else repeat(samples)
    colours = {1: colours * 255, 8: colours, 16: (colours + 128) // 257}[depth]
    np.testing.assert_array_equal(loaded(path), np.where(keyed[..., None], 255, colours))


@pytest.mark.parametrize("by_adobe", [True, False])
def test_cmyk(tmp_path, by_adobe):
    """(255 - c) (255 - k) / 255, where a file by Adobe holds 255 - c."""
    inks = np.array([20, 90, 160, 40])
    image = Image.new("CMYK", (16, 16), tuple(inks.tolist()))
    buffer = io.BytesIO()
    (image if by_adobe else ImageChops.invert(image)).save(buffer, "JPEG", quality=100)
    body = buffer.getvalue()
    marker = body[2:18]
    assert marker.startswith(b"\xff\xee\0\x0eAdobe")
    (tmp_path / "x.jpg").write_bytes(body if by_adobe else body.replace(marker, b""))
    expected = (255 - inks[:3]) * (255 - inks[3]) / 255
    assert np.abs(loaded(tmp_path / "x.jpg") - expected).max() <= 2


# ---- size and values ----------------------------------------------------------------------------


def weights(old, new):
    """The weight (new, old) of each old pixel in each new one."""
    step = old / new
    centres = (np.arange(new)[:, None] + 0.5) * step
    x = np.abs(np.arange(old) + 0.5 - centres) / max(step, 1)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    kernel = np.where(x < 1, near, np.where(x < 2, far, 0))
    return kernel / kernel.sum(1, keepdims=True)


def resize(image, side):
    """(H, W, 3) to (side, side, 3), first horizontally."""
    height, width = image.shape[:2]
    rows = np.einsum("iw,hwc->hic", weights(width, side), image)
    rows = np.clip(np.floor(rows + 0.5), 0, 255)
    return np.clip(np.floor(np.einsum("ih,hwc->iwc", weights(height, side), rows) + 0.5), 0, 255)


@pytest.mark.parametrize(
    ("width", "height"),
    [(48, 32), (100, 31), (31, 100), (9, 40), (40, 9), (33, 35), (32, 90), (1, 7), (400, 300)],
)
def test_resize(width, height):
    """In one call, Pillow 13 resizes some tall images vertically first, e.g. (31, 100)."""
    image = noise(height, width, 3) // 128 * 255  # with overshoots that are clipped
    squashed = Transform(32).squash(Image.fromarray(image.astype(np.uint8)))
    difference = np.abs(np.asarray(squashed) - resize(image, 32))
    assert difference.max() <= 1  # Pillow's weights have 22 bits
    assert (difference > 0).mean() < 0.01


def test_values():
    image = noise(8, 8, 3).astype(np.uint8)
    transform = Transform(8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    mean, std = np.float32(transform.mean), np.float32(transform.std)
    expected = ((np.float32(image) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    np.testing.assert_array_equal(transform(Image.fromarray(image)).numpy(), expected)
