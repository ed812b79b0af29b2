"""Sheets of reconstructions: what is drawn where."""

import numpy as np
from PIL import Image

from captioner.plots.reconstructions import Pair, save_reconstructions


def test_thumbnails_are_beside_each_other_in_one_row_per_pair(tmp_path):
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    long = "\n".join(f"sentence {i} " + "word " * 40 for i in range(4))
    save_reconstructions(
        tmp_path / "sheet.png",
        [Pair(red, blue, "a dog\ncats", "a cat"), Pair(blue, red, long, long)],
    )
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels[80, 80].tolist() == pixels[250, 220].tolist() == [255, 0, 0]
    assert pixels[80, 220].tolist() == pixels[250, 80].tolist() == [0, 0, 255]
    texts = pixels[:, 300:].min(2) < 200
    assert texts[:144].any()
    assert texts[-60:].any()  # the long texts are complete
    assert (pixels[:10] == 255).all()
