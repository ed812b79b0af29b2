#!/bin/sh
# Ray 2.60.0: ray.data.read_images passes over valid WebP, AVIF and JFIF files in a directory, without
# a note, although its decoder (Pillow) reads them. Status 0 while that is so.
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT INT TERM
cd "$directory"
python3 -m venv venv
venv/bin/python -m pip install --quiet 'ray[data]==2.60.0' pillow==13.0.0
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
venv/bin/python - <<'PYTHON'
import os

import PIL
import ray
from PIL import Image

print("ray", ray.__version__, "pillow", PIL.__version__)
os.mkdir("images")
written = {"a.jpg": "JPEG", "b.jfif": "JPEG", "c.webp": "WEBP", "d.avif": "AVIF", "e.png": "PNG"}
for name, form in written.items():
    Image.new("RGB", (8, 8), "red").save(f"images/{name}", form)
    with Image.open(f"images/{name}") as image:
        image.load()  # each is valid
ray.init(
    num_cpus=2,
    include_dashboard=False,
    log_to_driver=False,
    logging_level="ERROR",
    _temp_dir=os.path.abspath("ray"),
)
rows = ray.data.read_images(os.path.abspath("images"), include_paths=True).take_all()
read = sorted(os.path.basename(row["path"]) for row in rows)
print(f"written {sorted(written)}, read {read}")
assert read == ["a.jpg", "e.png"], f"the behaviour has changed: {read}"
PYTHON
