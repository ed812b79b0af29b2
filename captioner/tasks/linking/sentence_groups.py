"""Vectors and groups of sentences that are drawn as points.

Shapes: N sentences, Y dimensions.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ... import console
from ...linker import Linker
from ...plots.projections import MAX_GROUPS
from ...text.given_rows import GivenRows
from ...text.options import TextVectorOptions
from ...text.sentence_vectors import flatten_parts
from ...text.unknown_words import describe_unknown_words
from .text_vectors import encode_rows, fit_sentence_encoder


def sentence_vectors(
    source: Path | TextVectorOptions, sentences: Sequence[str], chosen: np.ndarray
) -> np.ndarray:
    """Return the vectors (N, Y) of the chosen sentences; print a note if words are unknown.

    source: a linking run or checkpoint, or options of an encoder that is fitted on the chosen
    sentences. chosen (N,): indices of sentences.
    """
    drawn = [sentences[i] for i in chosen]
    if isinstance(source, Path):
        linker = Linker.from_pretrained(source)
        vectors, _ = linker.encode_texts(drawn, on_unknown="return")
        note = describe_unknown_words(linker.texts.unknown_words, drawn)
    else:
        encoder = fit_sentence_encoder(source, drawn, len(sentences), fingerprint="")
        vectors = encode_rows(encoder, chosen.tolist(), drawn)
        has_rows = any(isinstance(part, GivenRows) for part in flatten_parts(encoder))
        note = "" if has_rows else describe_unknown_words(encoder.unknown_words, drawn)
    if note:
        console.note(note)
    return vectors


def groups_of_values(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the group of each value (N,), and the names of the groups.

    There is one group for each of the most frequent values; other values have the group -1.
    """
    frequent = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))[:MAX_GROUPS]
    index = {value: group for group, (value, _) in enumerate(frequent)}
    return np.array([index.get(value, -1) for value in values]), list(index)
