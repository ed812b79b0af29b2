"""Groups of similar images or texts of an index, named by the words that fit them.

Shapes: N images or texts.
"""

from typing import TYPE_CHECKING

import numpy as np

from .. import console
from ..plots.overlays import is_dimmed
from ..retrieval.projections import cluster, nearest_words

if TYPE_CHECKING:
    from ..index import Index
    from ..linker import Linker

WORDS = 3000  # the most frequent words, among which groups find their names


def group_images(
    index: "Index", chosen: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, list[str]]:
    """Divide rows of an index into groups by k-means of their embeddings.

    chosen (N,): the rows. count: number of groups, and seed: as in `cluster`. Returns the group of
    each row (N,), from 0 for the largest, and the name of each group: the known words whose
    embeddings fit it better than the other groups (see `nearest_words`), or "group 1", ..., after a
    note on standard error, if the text model has no list of words. Raises InputError as `cluster`
    does.
    """
    vectors = np.asarray(index.rows[chosen], np.float32)
    groups = cluster(vectors, count, seed)
    words, rows = _known_words(index.linker)
    if words:
        return groups, [", ".join(each) for each in nearest_words(vectors, groups, words, rows)]
    note = "note: groups are numbered, because the text model of the index has no list of words"
    console.note(note)
    return groups, [f"group {group + 1}" for group in range(groups.max() + 1)]


def _known_words(linker: "Linker") -> tuple[list[str], np.ndarray]:
    """Return the most frequent known words of a linking model, and their embeddings.

    Words that name nothing visible (see `is_dimmed`) are left out.
    """
    known = (word for word in linker.texts.words[:WORDS] if linker.texts.knows(word))
    words = [word for word in known if not is_dimmed(word)]
    rows = linker.encode_texts(words) if words else np.empty((0, linker.model.dimensions))
    return words, rows
