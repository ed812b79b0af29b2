"""Loading images of every kind, sound and broken, and their transform."""

import io
import itertools
import json
import logging
import math
import os
import socket
import struct
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageFile, ImageOps
from torchvision.transforms import InterpolationMode, functional

from captioner.data.images import MAX_BYTES, Transform, load_image, load_reduced, read_image
from captioner.data.sources import ImageSource, InputSource
from captioner.errors import InputError

ORIENTATION = 0x0112
FAITHFUL = {  # options that save without visible loss
    "jpg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True},
}
TURN = {  # what a camera that writes this tag did to the upright image
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_TOP_BOTTOM],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.ROTATE_90, Image.Transpose.FLIP_LEFT_RIGHT],
    8: [Image.Transpose.ROTATE_270],
}


def draw(width: int = 48, height: int = 32) -> Image.Image:
    """An image without any symmetry."""
    image = Image.new("RGB", (width, height), (200, 180, 40))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width // 3, height // 4), fill=(250, 10, 20))
    pen.ellipse((width // 2, height // 2, width - 2, height - 4), fill=(10, 60, 220))
    return image


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def exif_of(value: int, kind: int = 3) -> bytes:
    """An EXIF block that holds only an orientation tag of this value and TIFF type."""
    entry = struct.pack("<HHII", ORIENTATION, kind, 1, value)
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + b"\0\0\0\0"


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 100)
    parts = [
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (chunk, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "gif", "webp", "tif", "JPG", "wrong", ""])
def test_formats_are_recognised_by_content_not_by_suffix(tmp_path, ending):
    kind = {"jpg": "JPEG", "JPG": "JPEG", "tif": "TIFF", "wrong": "PNG", "": "WEBP"}.get(
        ending, ending
    )
    path = saved(
        tmp_path / f"image.{ending}",
        draw(),
        format=kind.upper(),
        **FAITHFUL.get(ending.lower() or "webp", {}),
    )
    loaded = load_image(path)
    assert type(loaded) is Image.Image
    assert loaded.mode == "RGB"
    assert loaded.size == (48, 32)
    assert abs(pixels(loaded) - pixels(draw())).mean() < 3
    assert pixels(load_image(str(path))).tolist() == pixels(loaded).tolist()


@pytest.mark.parametrize(
    "name", ["blåbær 犬.png", "two\nlines .png", os.fsdecode(b"l\xe4.png"), " "]
)
def test_odd_file_names_load_and_are_reported_in_one_line(tmp_path, name):
    path = saved(tmp_path / name, draw(), format="PNG")
    assert load_image(json.loads(json.dumps(str(path)))).size == (48, 32)
    path.write_bytes(b"broken")
    with pytest.raises(InputError) as caught:
        load_image(path)
    str(caught.value).encode()  # printable, on one line
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_extreme_sizes_load(tmp_path, size):
    loaded = load_image(saved(tmp_path / "x.png", Image.new("RGB", size, "red")))
    assert loaded.size == size
    assert Transform(8)(loaded).shape == (3, 8, 8)


def test_images_tensors_and_arrays_are_accepted():
    image = draw()
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for given in (image, array, tensor, tensor / 255, (tensor / 255).double(), array[:, ::1]):
        assert (pixels(load_image(given)) == pixels(image)).all()
    assert (pixels(load_image(array[:, ::-1])) == pixels(ImageOps.mirror(image))).all()
    assert (pixels(load_image((tensor / 255).requires_grad_())) == pixels(image)).all()


def test_the_result_shares_no_memory_with_the_input():
    for image in (draw(), np.array(draw())):
        loaded = load_image(image)
        loaded.paste("white", (0, 0, 48, 32))
        assert (pixels(load_image(image)) == pixels(draw())).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "got NoneType"),
        (b"bytes", "not an image in any of the formats"),
        (b"", "the image: the file is empty"),
        (torch.zeros(8, 8, 2), r"nonempty shape .* with 1, 3 or 4 channels, got \(8, 8, 2\)"),
        (torch.zeros(1, 3, 8, 8), r"shape .*, got \(1, 3, 8, 8\)"),
        (torch.zeros(3, 0, 8), r"nonempty shape .*, got \(3, 0, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "uint8 or float .* got torch.int64"),
        (torch.full((3, 2, 2), -0.5), r"must have unnormalised values in .*, got -0.5 to -0.5"),
        (torch.full((3, 2, 2), 255.0), r"in \[0, 1\], got 255.0 to 255.0; divide them by 255"),
        (torch.full((3, 2, 2), torch.nan), r"in \[0, 1\]"),
        (np.zeros((0, 8, 3), np.uint8), r"nonempty shape .*, got \(0, 8, 3\)"),
        (np.zeros(8, np.uint8), r"nonempty shape .*, got \(8,\)"),
        (np.zeros((8, 8, 3), np.int64), "array must be uint8 or float .* got int64; convert it"),
        (np.zeros((8, 8), bool), "array must be uint8 or float .* got bool; convert it"),
        (Image.new("RGB", (0, 5)), "PIL image: the image has no pixels"),
        (Image.new("F", (5, 5)), "PIL image: floating-point values have"),
        (Image.new("1", (10_000, 9_000)), "10000 x 9000 pixels exceed the limit of 89,000,000"),
    ],
)
def test_values_that_are_not_images_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        load_image(image)


def test_broken_files_are_reported_with_name_and_reason(tmp_path):
    jpeg = saved(tmp_path / "a.jpg", draw(300, 200)).read_bytes()
    png = saved(tmp_path / "a.png", Image.effect_noise((200, 200), 60)).read_bytes()
    cases = {
        b"": "file is empty",
        jpeg[:20]: "not an image in any of the formats JPEG",
        jpeg[: len(jpeg) // 2]: "truncated",
        jpeg[:-148]: "truncated",
        png[: len(png) // 2]: "truncated",
        png[:30]: "formats",
        b"\n<!DOCTYPE html><html><body>404</body></html>": "a web page; download the image again",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing; convert it to JPEG or PNG",
        b"8BPS" + b"\0" * 60: "a Photoshop file; convert it",
        b"\0\0\0\x20ftypheic\0\0\0\0mif1": "an HEIC image; convert it",
        b"\0\0\0\x20ftypavif\0\0\0\0avif": "an AVIF image; convert it",
        b"\0" * 128 + b"DICM": "a DICOM file; convert it",
        b"\x93NUMPY\x01\0v\0{'descr'": "a NumPy array; convert it",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "formats",
        b"SIMPLE  =                    T" + b" " * 2850: "formats",
        b"II*\0\x08\0\0\0": "",
        b"RIFF\0\0\0\0WEBPVP8 ": "",
        b"GIF89a": "formats",
    }
    for number, (content, reason) in enumerate(cases.items()):
        path = tmp_path / f"case{number}.jpg"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"case{number}\.jpg'.*{reason}"):
            load_image(path)


def test_truncated_files_load_or_raise_an_input_error(tmp_path):
    path = tmp_path / "cut"
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        whole = saved(path, draw(), format=kind, exif=exif_of(6)).read_bytes()
        for length in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:length])
            try:
                load_image(path)
            except InputError as error:
                assert "cut'" in str(error)  # noqa: PT017 -- not every cut raises


def test_paths_that_are_not_regular_files_are_refused_at_once(tmp_path):
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.jpg")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket.jpg"))
    listener.close()
    cases = {
        "missing.jpg": "no such file",
        "dangling.jpg": "no such file",
        ".": "a directory, not an image",
        "zero.jpg": "not a regular file",
        "pipe.jpg": "not a regular file",
        "socket.jpg": "not a regular file",
        "nul\0.jpg": "cannot be read",
        "x" * 300: "cannot be read",
    }
    start = time.monotonic()
    for name, reason in cases.items():
        with pytest.raises(InputError, match=reason):
            load_image(tmp_path / name)
    assert time.monotonic() - start < 1


def test_a_file_without_permission_is_reported(tmp_path, monkeypatch):
    path = saved(tmp_path / "locked.png", draw())

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"locked\.png'.*Permission denied"):
        load_image(path)


def test_large_files_and_decompression_bombs_are_refused_unread(tmp_path):
    fat = tmp_path / "fat.jpg"
    with fat.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"fat\.jpg'.*limit of 67,108,864"):
        load_image(fat)
    for side, reason in ((20_000, "too many pixels"), (12_000, "12000 x 12000 pixels")):
        bomb = tmp_path / f"{side}.png"
        bomb.write_bytes(png_header(side, side))
        with pytest.raises(InputError, match=rf"{side}\.png'.*{reason}"):
            load_image(bomb)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "bomb.png", Image.new("1", (12_000, 12_000)))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"bomb\.png'.*12000 x 12000 pixels"):
        load_image(path)


def test_bytes_are_read_under_the_rules_of_files(tmp_path):
    path = saved(tmp_path / "turned.jpg", draw(), exif=exif_of(6))
    assert (pixels(read_image(path.read_bytes())) == pixels(load_image(path))).all()
    with pytest.raises(InputError, match="the file: not an image in any of the formats JPEG"):
        read_image(b"/etc/passwd")
    with pytest.raises(InputError, match=r"the file: cannot be decoded \(broken or truncated\)"):
        read_image(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="48 x 32 pixels exceed the limit of 1,535"):
        read_image(path.read_bytes(), 1535)


def test_the_transform_of_a_squashed_image_is_that_of_the_image():
    transform = Transform(20)
    assert transform.squash(draw()).size == (20, 20)
    assert (transform(transform.squash(draw())) == transform(draw())).all()


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
    for name in ("grey.png", "grey.tif"):
        values = pixels(load_image(saved(tmp_path / name, Image.fromarray(ramp))))
        assert (values == np.round(ramp / 257)[..., None]).all()
        assert abs(values.mean() - 127) < 1
    wide = Image.fromarray(ramp.astype(np.int32))
    assert wide.mode == "I"
    assert abs(pixels(load_image(wide)).mean() - 127) < 1


def test_grey_values_of_unknown_range_are_refused(tmp_path):
    deep = Image.fromarray(np.array([[-1, 70_000]], np.int32))
    with pytest.raises(InputError, match="from -1 to 70000 do not fit in 16 bits; save"):
        load_image(deep)
    path = saved(tmp_path / "f.tif", Image.new("F", (4, 4), 0.5))
    with pytest.raises(InputError, match=r"f\.tif'.*floating-point"):
        load_image(path)


def tiff(values, photometric, kind, order="<"):
    """Encode an array (H, W, bands) as an uncompressed TIFF file; kind: its SampleFormat."""
    height, width, bands = values.shape
    entries = 11
    end = 8 + 2 + 12 * entries + 4  # where the bits of each band follow, then kinds, then pixels
    tags = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, end), (259, 3, 1, 1)),
        *((262, 3, 1, photometric), (273, 4, 1, end + 4 * bands), (277, 3, 1, bands)),
        *((278, 4, 1, height), (279, 4, 1, values.nbytes), (284, 3, 1, 1)),
        (339, 3, bands, end + 2 * bands),
    ]
    content = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    content += struct.pack(order + "H", entries)
    for tag, code, count, value in tags:
        short = code == 3 and count == 1  # big-endian: at the left of its four bytes
        content += struct.pack(order + ("HHIHxx" if short else "HHII"), tag, code, count, value)
    content += struct.pack(order + "I", 0)
    content += struct.pack(f"{order}{2 * bands}H", *[8 * values.itemsize] * bands, *[kind] * bands)
    return content + values.astype(values.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("values", "photometric", "kind", "message"),
    [
        (np.full((8, 8, 3), 0.5, np.float32), 2, 3, "3 bands of 32-bit floating-point values"),
        (np.full((8, 8, 13), 3000, np.uint16), 1, 1, "13 bands of 16-bit integers"),
        (np.full((8, 8, 3), 7, np.int16), 2, 2, "3 bands of 16-bit signed integers"),
        (np.full((8, 8, 5), 7, np.uint32), 1, 1, "5 bands of 32-bit integers"),
    ],
)
def test_tiff_images_that_cannot_be_read_are_described(
    values, photometric, kind, message, order, capfd, caplog
):
    with pytest.raises(InputError, match=f"^the file: a TIFF image of {message}, .*; save one or"):
        read_image(tiff(values, photometric, kind, order))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    rgb = read_image(tiff(np.full((8, 8, 3), 200, np.uint8), 2, 1, order))
    assert (pixels(rgb) == 200).all()  # the encoding itself is valid


def test_the_log_of_pillow_is_silent_only_while_an_image_is_read():
    log = logging.getLogger("PIL.TiffImagePlugin")
    with pytest.raises(InputError):
        read_image(tiff(np.zeros((8, 8, 13), np.uint16), 1, 1))
    assert not log.filters


@pytest.mark.parametrize("highest", [255, 1023, 4095])
def test_fewer_bits_in_16_bit_files(tmp_path, highest):
    """The image would be black; cameras and microscopes write 10 and 12 bits this way."""
    values = np.linspace(0, highest, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=f"nearly black: .* 16-bit values are at most {highest};"):
        load_image(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "b.png")  # black indeed
    assert load_image(tmp_path / "b.png").getextrema() == ((0, 0),) * 3
    values[0, 0] = 4096
    Image.fromarray(values).save(tmp_path / "c.png")
    assert load_image(tmp_path / "c.png").getextrema()[0][1] == 16


def test_colour_profiles_are_ignored(tmp_path):
    """As in torchvision and timm, with whose weights the encoders begin."""
    red = Image.new("RGB", (8, 8), (200, 30, 40))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for name in ("a.png", "a.jpg"):
        red.save(tmp_path / name, icc_profile=profile)
        red.save(tmp_path / f"plain-{name}")
        plain = load_image(tmp_path / f"plain-{name}")
        assert load_image(tmp_path / name).tobytes() == plain.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBX", "YCbCr", "HSV", "LAB", "RGBa"])
def test_other_modes_become_rgb(mode):
    source = draw().convert("RGBA").convert(mode) if mode == "RGBa" else None
    if source is None:
        source = Image.new(mode, (4, 4)) if mode in ("LAB", "PA") else draw().convert(mode)
    loaded = load_image(source)
    assert loaded.mode == "RGB"
    assert loaded.size == source.size
    if mode not in ("LAB", "PA"):
        reference = pixels(draw().convert("L") if mode in ("1", "L", "LA") else draw())
        reference = reference[..., None] if reference.ndim == 2 else reference
        assert abs(pixels(loaded).mean() - reference.mean()) < (10 if mode == "1" else 4)


@pytest.mark.parametrize("by_adobe", [True, False])
def test_cmyk_is_close_to_rgb(tmp_path, by_adobe):
    """JPEGs by Adobe hold the complement, as their marker says; others hold the inks."""
    cmyk = draw(64, 64).convert("CMYK")
    buffer = io.BytesIO()
    (cmyk if by_adobe else ImageChops.invert(cmyk)).save(buffer, "JPEG", quality=95)
    body = buffer.getvalue()
    marker = body[2:18]
    assert marker.startswith(b"\xff\xee\0\x0eAdobe")
    (tmp_path / "x.jpg").write_bytes(body if by_adobe else body.replace(marker, b""))
    assert abs(pixels(load_image(tmp_path / "x.jpg")) - pixels(draw(64, 64))).mean() < 3
    tiff = saved(tmp_path / "x.tif", cmyk)
    assert abs(pixels(load_image(tiff)) - pixels(draw(64, 64))).mean() < 1


def test_transparency_is_composited_over_white(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    noise[..., 3] = 0
    assert (pixels(load_image(saved(tmp_path / "a.png", Image.fromarray(noise)))) == 255).all()
    noise[..., 3] = 128
    half = pixels(load_image(Image.fromarray(noise)))
    assert abs(half - (noise[..., :3] * (128 / 255) + 255 * (127 / 255))).max() <= 1
    grey = Image.merge("LA", [Image.new("L", (4, 4), 7), Image.new("L", (4, 4), 0)])
    assert (pixels(load_image(saved(tmp_path / "la.png", grey))) == 255).all()


def test_transparent_palettes_and_colour_keys_become_white(tmp_path):
    palette = Image.new("P", (4, 2))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (0, 0, 2, 2))
    expected = np.array([[[0, 0, 255]] * 2 + [[255, 255, 255]] * 2] * 2)
    for name, key in (("bytes.png", b"\0\xff"), ("index.png", 0), ("index.gif", 0)):
        path = saved(tmp_path / name, palette, transparency=key)
        assert (pixels(load_image(path)) == expected).all()
    path = saved(tmp_path / "key.png", Image.new("RGB", (2, 2), "red"), transparency=(255, 0, 0))
    assert (pixels(load_image(path)) == 255).all()


@pytest.mark.parametrize("kind", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation, kind):
    stored = draw()
    for method in TURN.get(orientation, []):
        stored = stored.transpose(method)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path / f"x.{kind}", stored, exif=exif, **FAITHFUL.get(kind, {}))
    loaded = load_image(path)
    assert loaded.size == (48, 32)
    assert abs(pixels(loaded) - pixels(draw())).mean() < (3 if kind == "jpg" else 0.01)
    with Image.open(path) as lazy:
        assert (pixels(load_image(lazy)) == pixels(loaded)).all()
    again = load_image(loaded)  # the orientation is not applied twice
    assert (pixels(again) == pixels(loaded)).all()
    assert not again.getexif()


@pytest.mark.parametrize(
    "exif",
    [
        exif_of(0),
        exif_of(9),
        exif_of(6, kind=99),
        b"Exif\0\0garbage without a TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        exif_of(6)[:-9],
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0",
        b"Exif\0\0",
    ],
)
def test_broken_exif_is_ignored(tmp_path, exif):
    loaded = load_image(saved(tmp_path / "x.jpg", draw(), exif=exif, **FAITHFUL["jpg"]))
    assert loaded.size == (48, 32)
    assert abs(pixels(loaded) - pixels(draw())).mean() < 3


def test_orientation_survives_other_broken_tags(tmp_path):
    tags = struct.pack("<HHII", 0x010F, 2, 5000, 9999) + struct.pack(
        "<HHIHH", ORIENTATION, 3, 1, 6, 0
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + tags + b"\0\0\0\0"
    assert load_image(saved(tmp_path / "x.jpg", draw(), exif=exif)).size == (32, 48)


def test_bad_xmp_is_ignored(tmp_path):
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>\xff\xfe tiff:Orientation="x"'
    buffer = io.BytesIO()
    draw().save(buffer, "JPEG")
    body = buffer.getvalue()
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    (tmp_path / "x.jpg").write_bytes(body[:2] + segment + body[2:])
    assert load_image(tmp_path / "x.jpg").size == (48, 32)


def test_broken_tiff_metadata_gives_no_warning(tmp_path):
    path = saved(tmp_path / "x.tif", draw(), compression="tiff_lzw")
    body = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", body, 4)[0]
    count = struct.unpack_from("<H", body, start)[0]
    tag = struct.pack("<HHII", 0x8769, 4, 1, 2**31)  # a sub-directory far beyond the end
    body += (
        struct.pack("<H", count + 1) + body[start + 2 : start + 2 + 12 * count] + tag + b"\0" * 4
    )
    struct.pack_into("<I", body, 4, len(body) - (2 + 12 * (count + 1) + 4))
    path.write_bytes(body)
    assert (pixels(load_image(path)) == pixels(draw())).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_is_used(tmp_path, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"x.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **FAITHFUL.get(kind, {}))
    for _ in range(2):
        assert (pixels(load_image(path)) == [255, 0, 0]).all()


def test_threads_agree_and_leave_the_warning_filters_alone(tmp_path, monkeypatch):
    broken = saved(tmp_path / "x.jpg", draw(), exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    before, real, waits = list(warnings.filters), Image.open, itertools.cycle([0.01, 0.015])

    def slow(*arguments, **options):  # so that the threads overlap
        time.sleep(next(waits))
        return real(*arguments, **options)

    monkeypatch.setattr(Image, "open", slow)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_image, [broken] * 12))
    assert len({image.tobytes() for image in loaded}) == 1
    assert warnings.filters == before


def test_global_settings_are_not_changed(tmp_path):
    path = saved(tmp_path / "x.png", draw())
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    random = torch.get_rng_state(), torch.get_num_threads()
    Transform(16)(load_image(path))
    with pytest.raises(InputError):
        load_image(tmp_path / "missing")
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    assert before == after
    assert torch.equal(random[0], torch.get_rng_state())
    assert random[1] == torch.get_num_threads()


def test_files_are_closed(tmp_path, recwarn):
    path = saved(tmp_path / "x.tif", draw())
    load_image(path)
    path.unlink()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


@pytest.mark.parametrize("size", [(48, 32), (77, 31), (16, 16), (1, 9)])
def test_transform_equals_torchvision(size):
    """Tall images are in test_image_rules.py: Pillow 13 resizes them vertically first."""
    image = draw(*size) if min(size) > 8 else Image.new("RGB", size, (9, 99, 199))
    transform = Transform(16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    squashed = functional.resize(image, [16, 16], InterpolationMode.BICUBIC)
    expected = functional.normalize(functional.to_tensor(squashed), transform.mean, transform.std)
    result = transform(image)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_batches_have_the_layout_of_encoders_and_the_values_of_single_images():
    transform = Transform(9, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    noise = np.random.default_rng(6).integers(0, 256, (2, 20, 31, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    batch = transform.batch(images)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for found, image in zip(batch, images, strict=True):
        single = transform(image)
        assert single.is_contiguous()
        assert torch.equal(found, single)
        pixels = np.asarray(transform.squash(image), np.float32).transpose(2, 0, 1) / 255
        mean, std = (
            np.array(each, np.float32)[:, None, None] for each in (transform.mean, transform.std)
        )
        assert np.array_equal(single.numpy(), (pixels - mean) / std)


def test_transform_keeps_the_corners():
    """Nothing is cropped and nothing is mirrored."""
    image = Image.new("RGB", (90, 30))
    for place, colour in {
        (0, 0): "red",
        (80, 0): "lime",
        (0, 20): "blue",
        (80, 20): "white",
    }.items():
        image.paste(colour, (*place, place[0] + 10, place[1] + 10))
    result = Transform(9, mean=(0, 0, 0), std=(1, 1, 1))(image)
    corners = result[:, [0, 0, -1, -1], [0, -1, 0, -1]].T
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    assert (corners - expected).abs().max() < 0.1


def test_transform_survives_json():
    transform = Transform(224, mean=(0.5, 0.25, 0.125))
    again = Transform(**json.loads(json.dumps(asdict(transform))))
    assert again == transform
    assert hash(again) == hash(transform)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be an integer from 1 to 4096, got 0"),
        ({"size": 100_000}, "size must be an integer from 1 to 4096, got 100000"),
        ({"size": 1.5}, r"size must be an integer from 1 to 4096, got 1\.5"),
        ({"size": True}, "size must be an integer from 1 to 4096, got True"),
        (
            {"size": 8, "mean": (0, math.nan, 0)},
            r"the values of mean must be from -1000\.0 to 1000\.0, got .*nan",
        ),
        ({"size": 8, "std": (1, math.nan, 1)}, r"std must be from 0\.001 to 1000\.0, got .*nan"),
        ({"size": 8, "std": (1, 1, 1e-45)}, r"std must be from 0\.001 to 1000\.0, got .*1e-45"),
        ({"size": 8, "mean": (0.5,)}, r"mean must have 3 values \(red, green, blue\), got 1"),
        ({"size": 8, "std": (1, 0, 1)}, "std must be from 0.001"),
    ],
)
def test_transform_refuses_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        Transform(**options)


def test_transform_refuses_other_modes():
    with pytest.raises(InputError, match="got mode L; use load_image"):
        Transform(8)(Image.new("L", (8, 8)))


# ---- reduced images ------------------------------------------------------------------------------


def pattern(size, mode="RGB"):
    """An image of broad stripes, which survive scaling down."""
    x, y = np.meshgrid(np.linspace(0, 9, size[0]), np.linspace(0, 7, size[1]))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], -1)
    image = Image.fromarray((127.5 + 127 * waves).astype(np.uint8))
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray((127.5 + 127 * np.cos(x * y / 9)).astype(np.uint8)))
    return image.convert(mode)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("a.jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *(("a.png", mode) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        *(("a.webp", "RGBA"), ("a.tif", "CMYK")),
    ],
)
def test_reduced_images_are_the_images_scaled_down(tmp_path, name, mode, orientation):
    path, exif = tmp_path / name, Image.Exif()
    exif[ORIENTATION] = orientation
    pattern((1000, 300), mode).save(path, exif=exif, **FAITHFUL.get(name[2:], {}))
    whole = load_image(path)
    reduced = load_reduced(path, 100)
    assert reduced.size == ((100, 30) if orientation == 1 else (30, 100))
    assert (reduced.mode, reduced.info) == ("RGB", {})
    expected = np.asarray(whole.resize(reduced.size, Image.Resampling.LANCZOS), np.float32)
    difference = np.abs(np.asarray(reduced, np.float32) - expected)
    assert difference.mean() < 2
    np.testing.assert_array_equal(np.asarray(load_reduced(str(path), 1000)), np.asarray(whole))


def test_reduced_images_have_the_same_limits(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (1000, 300)).save(path)
    assert load_reduced(path, 100, 300_000).size == (100, 30)
    with pytest.raises(InputError, match="1000 x 300 pixels exceed the limit of 299,999"):
        load_reduced(path, 100, 299_999)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="cannot be decoded"):
        load_reduced(path, 100)


def test_jpeg_files_are_decoded_at_a_reduced_size(tmp_path, monkeypatch):
    decoded, load = [], ImageFile.ImageFile.load

    def observed(image):
        decoded.append(image.size)
        return load(image)

    Image.new("RGB", (2400, 1600)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(ImageFile.ImageFile, "load", observed)
    load_reduced(tmp_path / "a.jpg", 320)
    assert max(decoded) == (1200, 800)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, *TURN])
def test_jpeg_files_reduced_for_a_transform_give_its_pixels(
    tmp_path, orientation, mode, progressive
):
    transform, exif = Transform(50), Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "a.jpg"
    pattern((904, 624), mode).save(path, exif=exif, progressive=progressive, **FAITHFUL["jpg"])
    whole, reduced = load_image(path), load_image(path, transform.least)
    assert reduced.size == tuple(side // 4 for side in whole.size)  # an eighth is below 100
    assert (reduced.mode, reduced.info) == ("RGB", {})
    difference = np.abs(pixels(transform.squash(whole)) - pixels(transform.squash(reduced)))
    assert difference.max() <= 4
    assert difference.mean() < 0.5


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((640, 480), (640, 480)),
        ((2000, 447), (2000, 447)),
        ((2000, 895), (2000, 895)),
        ((2000, 896), (1000, 448)),
        ((1790, 1792), (895, 896)),
        ((1792, 1792), (448, 448)),
        ((1796, 1794), (898, 897)),
        ((3999, 3000), (3999, 3000)),
        ((4000, 3000), (1000, 750)),
        ((300, 200), (300, 200)),
    ],
)
def test_jpeg_files_keep_twice_the_side_of_the_transform(tmp_path, size, decoded):
    path = saved(tmp_path / "a.jpg", pattern(size))
    image = load_image(path, Transform(224).least)
    assert image.size == decoded
    if size == decoded:
        np.testing.assert_array_equal(pixels(image), pixels(load_image(path)))


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.gif", "a.bmp"])
def test_only_jpeg_files_are_reduced(tmp_path, name):
    path = saved(tmp_path / name, pattern((640, 480)))
    np.testing.assert_array_equal(pixels(load_image(path, 100)), pixels(load_image(path)))


def test_files_with_several_jpeg_images_are_reduced_to_the_first(tmp_path):
    first, second = pattern((640, 480)), Image.new("RGB", (640, 480))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    image = load_image(path, 100)
    assert image.size == (160, 120)
    assert np.abs(pixels(image) - pixels(first.resize((160, 120)))).mean() < 2


def test_transforms_that_do_not_average_see_whole_files():
    assert Transform(50).least == 100
    assert Transform(50, interpolation="nearest").least is None


def test_bytes_and_sources_are_reduced_like_files(tmp_path):
    transform, path = Transform(50), saved(tmp_path / "a.jpg", pattern((904, 624)))
    content = path.read_bytes()
    image = load_image(path, transform.least)
    assert image.size == (226, 156)
    for other in (load_image(content, 100), read_image(content, least=100)):
        np.testing.assert_array_equal(pixels(other), pixels(image))
    with pytest.raises(InputError, match="904 x 624 pixels exceed the limit of 564,095"):
        read_image(content, 564_095, 100)
    for source in (ImageSource([path], transform), InputSource([content], transform, "stop")):
        assert torch.equal(source.load([0]), transform.batch([image]))


def test_broken_files_are_not_reduced_either(tmp_path):
    path = saved(tmp_path / "a.jpg", pattern((904, 624)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be decoded"):
        load_image(path, 100)


@pytest.mark.parametrize(("side", "most"), [(3000, 2), (300, 4)])
def test_at_most_two_large_images_are_decoded_at_once(tmp_path, side, most, monkeypatch):
    running, counts, lock = [0], [], threading.Lock()
    thumbnail = Image.Image.thumbnail

    def observed(image, *arguments):
        with lock:
            running[0] += 1
            counts.append(running[0])
        time.sleep(0.2)
        try:
            return thumbnail(image, *arguments)
        finally:
            with lock:
                running[0] -= 1

    Image.new("RGB", (side, side)).save(tmp_path / "a.png", compress_level=1)
    monkeypatch.setattr(Image.Image, "thumbnail", observed)
    with ThreadPoolExecutor(4) as pool:
        sizes = {image.size for image in pool.map(load_reduced, [tmp_path / "a.png"] * 4, [32] * 4)}
    assert sizes == {(32, 32)}
    assert max(counts) == most
