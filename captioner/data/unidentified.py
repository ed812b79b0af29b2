"""Descriptions of files that Pillow cannot identify as images, for error messages."""

import re
from typing import IO

from PIL import TiffImagePlugin

_HEAD = 200  # bytes that identify a file
_CONVERT = "; convert it to JPEG or PNG"
# Contents by the beginning of the file, each with what to do.
_CONTENTS = (
    (rb"....ftyp(avif|avis)", "an AVIF image" + _CONVERT),
    (rb"....ftyp(hei|hev|mif|msf)", "an HEIC image" + _CONVERT),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 image" + _CONVERT),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL image" + _CONVERT),
    (rb"8BPS", "a Photoshop file" + _CONVERT),
    (rb"%PDF", "a PDF file" + _CONVERT),
    (rb".{128}DICM", "a DICOM file" + _CONVERT),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "an SVG drawing" + _CONVERT),
    (rb"\s*<(!doctype html|html|head|body)", "a web page; download the image again"),
    (rb"\x93NUMPY", "a NumPy array" + _CONVERT),
    (rb"PK\x03\x04|\x1f\x8b", "a compressed file; unpack it"),
)
_BITS, _SAMPLES, _FORMAT = 258, 277, 339  # tags of a TIFF file
_KINDS = {1: "integers", 2: "signed integers", 3: "floating-point values"}


def describe(file: IO[bytes]) -> str | None:
    """Return the kind of file and advice for the user, or None if the kind is unknown."""
    file.seek(0)
    start = file.read(_HEAD)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _describe_tiff(file, start)
    matches = (text for pattern, text in _CONTENTS if re.match(pattern, start, re.DOTALL | re.I))
    return next(matches, None)


def _describe_tiff(file: IO[bytes], start: bytes) -> str | None:
    """Describe a TIFF file whose pixels have a layout that Pillow does not read."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(start[: 16 if b"+" in start[:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        bits = tags.get(_BITS, (1,))
        bands = int(tags.get(_SAMPLES, len(bits)))
        kind = _KINDS.get(tags.get(_FORMAT, (1,))[0], "values of unknown type")
    except Exception:  # the directory is broken
        return None
    return (
        f"a TIFF image of {bands} band{'s' * (bands != 1)} of {bits[0]}-bit {kind}, which cannot "
        "be read; save one or three bands with 8 bits each"
    )
