"""Labels of images, from captions or tags, and the labels that are held out from training.

Shapes: I images, L labels.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..text.content_words import families, is_content_word
from ..text.tokenizer import plain_words
from .dataset import Example
from .formats.tags import BETWEEN

FILE = "labels.json"
AGREEMENT = 2  # captions of an image that must use a word; half of them if it has fewer than four


@dataclass(frozen=True)
class ImageLabels:
    """The labels of I images.

    names (L,): the labels. present: for each image, the indices of its labels. unclear: for each
    image, the indices of labels that may or may not apply to it. All other labels are absent.
    """

    names: tuple[str, ...]
    present: tuple[np.ndarray, ...]
    unclear: tuple[np.ndarray, ...]

    def mentioned(self) -> np.ndarray:
        """Return a matrix (I, L), bool: whether a label is present or unclear in an image."""
        matrix = np.zeros((len(self.present), len(self.names)), bool)
        for row, present, unclear in zip(matrix, self.present, self.unclear, strict=True):
            row[present] = row[unclear] = True
        return matrix


@dataclass(frozen=True)
class LabelSplit:
    """The labels of a data set, the most frequent first in each of the two groups.

    Training uses only the `seen` labels; those in `held_out` are kept for evaluation.
    """

    seen: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All labels, the seen ones first."""
        return (*self.seen, *self.held_out)

    def save(self, directory: Path) -> None:
        """Write the labels to the file FILE in an existing directory."""
        content = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (directory / FILE).write_text(content + "\n", encoding="utf-8")


def load_labels(directory: Path) -> LabelSplit:
    """Load the labels that `LabelSplit.save` wrote; raise InputError if they cannot be read."""
    path = directory / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seen, held_out = (tuple(content[name]) for name in ("seen", "held_out"))
        if not seen or not all(isinstance(name, str) for name in (*seen, *held_out)):
            raise ValueError("seen and held_out must be lists of strings, and seen not empty")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(
            f"{path} cannot be read: {reason}; copy or download the checkpoint again"
        ) from error
    return LabelSplit(seen, held_out)


Words = tuple[frozenset[str], frozenset[str]]  # an image's labels; labels that are unclear for it


def caption_words(examples: Sequence[Example]) -> list[Words]:
    """Return, for each image, the content words that label it, and the words that are unclear.

    A word labels an image if at least two of its captions use it, or at least half of them if
    there are fewer than four. A word that fewer captions use is unclear.
    """
    words = []
    for example in examples:
        counts: Counter[str] = Counter()
        for caption in example.captions:
            counts.update(set(filter(is_content_word, plain_words(caption))))
        needed = min(AGREEMENT, -(-len(example.captions) // 2))
        present = frozenset(word for word, count in counts.items() if count >= needed)
        words.append((present, frozenset(counts) - present))
    return words


def tag_words(examples: Sequence[Example], tags: Mapping[str, Collection[str]]) -> list[Words]:
    """Return the tags of each image; no tag is unclear.

    tags: the tags of each image by its path, its id, or its file name without directories; the
    first of these that is listed is used. An image that is not listed has no tags.
    """
    names = ((str(example.path), str(example.id), example.path.name) for example in examples)
    found = (next((tags[name] for name in each if name in tags), ()) for each in names)
    return [(frozenset(each), frozenset()) for each in found]


def own_tags(examples: Sequence[Example]) -> list[Words]:
    """Return the tags of each image of a data set that `formats.tags` has read."""
    captions = (BETWEEN.join(example.captions) for example in examples)
    return [(frozenset(caption.split(BETWEEN)), frozenset()) for caption in captions]


def choose_labels(
    words: Sequence[Words], minimum: int, is_known: Callable[[str], bool]
) -> list[str]:
    """Return the labels that at least `minimum` images have, the most frequent first.

    is_known(label): whether the label has a vector; labels without one are left out. Raises
    InputError if fewer than two labels remain.
    """
    counts = Counter(word for present, _ in words for word in present)
    frequent = [(-n, word) for word, n in counts.items() if n >= minimum]
    if len(frequent) < 2:
        raise InputError(
            f"training needs at least 2 labels that occur in at least {minimum} images, got "
            f"{len(frequent)}; lower --min-images, or add images"
        )
    chosen = [(n, word) for n, word in frequent if is_known(word)]
    if len(chosen) < 2:
        raise InputError(
            f"training needs at least 2 labels that occur in at least {minimum} images and have "
            f"a vector, got {len(chosen)}; choose other --text-vectors, or lower --min-images"
        )
    return [word for _, word in sorted(chosen)]


def split_labels(names: Sequence[str], share: float, seed: int) -> LabelSplit:
    """Split labels at random into seen and held-out ones; `share` is the fraction to hold out.

    Words with the same stem, such as "dog" and "dogs", are held out together; otherwise one would
    reveal the other. Slightly fewer labels than the rounded share may therefore be held out, but
    never more.
    """
    groups, held = families(names), set[str]()
    random.Random(f"labels/{seed}").shuffle(groups)
    for group in groups:
        if len(held) + len(group) <= round(share * len(names)):
            held.update(group)
    return LabelSplit(
        tuple(name for name in names if name not in held),
        tuple(name for name in names if name in held),
    )


def image_labels(words: Sequence[Words], names: Sequence[str]) -> ImageLabels:
    """Return the labels of images as indices into `names`; other labels are ignored."""
    index = {name: i for i, name in enumerate(names)}

    def ids(group: Collection[str]) -> np.ndarray:
        return np.array(sorted(index[word] for word in group if word in index), np.int64)

    present, unclear = zip(*((ids(a), ids(b)) for a, b in words), strict=True)
    return ImageLabels(tuple(names), present, unclear)


def exclude_relatives(labels: ImageLabels) -> ImageLabels:
    """Count other forms of an image's present and unclear labels as unclear, not as absent.

    An image of stars shows a star, even if no caption calls it that. Labels that are present stay
    present.
    """
    index = {name: i for i, name in enumerate(labels.names)}
    relatives = {
        index[name]: [index[other] for other in family]
        for family in families(labels.names)
        for name in family
    }
    unclear = []
    for own, doubtful in zip(labels.present, labels.unclear, strict=True):
        related = {other for i in (*own, *doubtful) for other in relatives[i]}
        unclear.append(np.array(sorted(related - set(own.tolist())), np.int64))
    return ImageLabels(labels.names, labels.present, tuple(unclear))
