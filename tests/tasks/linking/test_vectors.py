"""Scores of a split from embeddings."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from captioner.data.dataset import CaptionData, Example
from captioner.models.linking.texts import TextReader
from captioner.tasks.linking.vectors import score_split
from captioner.text.sentence_vectors import fit_counts


@pytest.mark.parametrize("difference", [0, 1e-7, -1e-7])
def test_equal_captions_tie_in_spite_of_rounding(difference):
    """Products of equal rows differ in the last bit by their positions in a matrix."""
    examples = tuple(Example(i, Path(f"{i}.png"), ("A dog .",), "val") for i in range(2))
    linker = SimpleNamespace(
        texts=TextReader(sentences=fit_counts(["a dog"], 1)),
        encode_source=lambda *_, **__: np.array([[1, 0], [1, 0]], np.float32),
        embed=lambda _: np.array([[1, 0], [1 + difference, 0]], np.float32),
    )
    data = CaptionData("two", "jsonl", Path("two"), examples)
    result = score_split(linker, None, data, "val")
    assert (result.own.numbers["i2t_R@1"], result.own.numbers["t2i_R@1"]) == (0, 0)
    assert result.equal is not None
    assert (result.equal.numbers["i2t_R@1"], result.equal.numbers["t2i_R@1"]) == (100, 100)
