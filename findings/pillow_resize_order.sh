#!/bin/sh
# Pillow 13.0.0: Image.resize works vertically first on some tall images, with rounding between the
# two directions, so that its pixels differ from those of Pillow 12.3.0, which always works
# horizontally first, and from two calls in that order. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
cat > resize.py <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

noise = np.random.default_rng(0).integers(0, 256, (640, 300, 3), dtype=np.uint8)
tall = Image.fromarray(noise)
size = (128, 128)
at_once = np.asarray(tall.resize(size, Image.Resampling.BICUBIC))
wide_first = tall.resize((128, 640), Image.Resampling.BICUBIC)
two_calls = np.asarray(wide_first.resize(size, Image.Resampling.BICUBIC))
print("Pillow", PIL.__version__, "levels between one call and two:",
      int(np.abs(at_once.astype(int) - two_calls).max()))
np.save(sys.argv[1], at_once)
PYTHON
for version in 12.3.0 13.0.0; do
    python3 -m venv "v$version"
    "v$version/bin/python" -m pip install --quiet "pillow==$version" numpy==2.4.6
    "v$version/bin/python" resize.py "$version.npy"
done
v13.0.0/bin/python - <<'PYTHON'
import sys

import numpy as np

old, new = np.load("12.3.0.npy").astype(int), np.load("13.0.0.npy").astype(int)
difference = int(np.abs(old - new).max())
print("levels between 12.3.0 and 13.0.0:", difference)
sys.exit(difference == 0)
PYTHON
