"""The page of a run: images with their best captions, without repeated ones."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from captioner.data.dataset import Example
from captioner.tasks.linking.matches import write_matches
from captioner.tasks.linking.vectors import rank_examples


def test_equal_captions_are_shown_once_and_marked_as_own(tmp_path):
    captions = [("A cat.", "a cat"), ("a dog", "the dog"), ("a cow", "a dog")]
    examples = []
    for number, texts in enumerate(captions):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(path)
        examples.append(Example(number, path, texts, "val"))
    scores = np.array([[3, 4, 1, 0, 2, 5], [0, 1, 3, 2, 5, 4], [1, 0, 2, 5, 4, 3]], float)
    write_matches(
        tmp_path / "matches.html", examples, rank_examples(scores, scores, examples, "val")
    )
    page = Path(tmp_path / "matches.html").read_text()
    first = page[page.index("0.png") :]
    shown = re.findall(r'<li( class="own")?>([^<]+) <span', first)[:4]
    assert [text.lower() for _, text in shown] == ["a dog", "a cat", "a cow", "the dog"]
    assert [bool(own) for own, _ in shown] == [False, True, False, False]
