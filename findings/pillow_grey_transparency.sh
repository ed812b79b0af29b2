#!/bin/sh
# Pillow 13.0.0: a grey PNG of 4 bits with a transparent grey value (chunk tRNS) has other
# transparent pixels than the file says: samples are scaled to 8 bits, the transparent value is not.
# Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet pillow==13.0.0
venv/bin/python - <<'PYTHON'
import io
import struct
import sys
import zlib

import PIL
from PIL import Image


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# Two pixels, 3 and 15 of 15, of which 3 is transparent.
png = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    + chunk(b"tRNS", struct.pack(">H", 3))
    + chunk(b"IDAT", zlib.compress(b"\x00\x3f"))
    + chunk(b"IEND", b"")
)
image = Image.open(io.BytesIO(png)).convert("RGBA")
alphas = [image.getpixel((x, 0))[3] for x in range(2)]
print("Pillow", PIL.__version__, "alpha of a transparent and an opaque pixel:", alphas)
sys.exit(alphas == [0, 255])
PYTHON
