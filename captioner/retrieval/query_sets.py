"""Queries for evaluating search: the standard ones, files of queries, and the relevant images.

An image is relevant to a query if its captions contain the words of every added term, and do not
contain the words of any subtracted term. Nothing is embedded here.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..text.tokenizer import plain_words
from .query import Query, parse

# Frequent words of Flickr8k, pairs of them, and pairs A - B of which 13 to 45 % of the images
# with A also show B.
PHOTOGRAPHS = (
    *("dog", "beach", "snow", "water", "bike", "ball"),
    *("car", "grass", "pool", "mountain", "baby", "horse"),
    *("dog + snow", "dog + water", "boy + ball", "girl + beach", "man + bike", "dog + ball"),
    *("man + rock", "people + snow", "woman + street", "boy + pool", "dog + beach"),
    "child + swing",
    *("water - dog", "snow - dog", "beach - dog", "ball - dog", "dog - grass", "dog - water"),
    *("dog - ball", "water - man", "snow - man", "bike - boy", "street - woman", "rock - water"),
)
# The same numbers of queries for the demo data.
SHAPES = (
    *("circle", "square", "triangle", "star", "cross", "heart"),
    *("red", "green", "blue", "yellow", "purple", "orange"),
    *("red + circle", "green + square", "blue + triangle", "yellow + star", "purple + cross"),
    *("orange + heart", "striped + red", "dotted + blue", "circle + square", "triangle + star"),
    *("cross + heart", "large + purple"),
    *("circle - red", "square - green", "triangle - blue", "star - yellow", "cross - purple"),
    *("heart - orange", "red - circle", "green - square", "blue - triangle", "yellow - star"),
    *("purple - cross", "orange - heart"),
)
STANDARD = (PHOTOGRAPHS, SHAPES)
_IRREGULAR = {
    **{"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet"},
    **{"tooth": "teeth", "goose": "geese", "mouse": "mice", "wolf": "wolves", "leaf": "leaves"},
    **{"knife": "knives", "shelf": "shelves", "scarf": "scarves"},
}


@dataclass(frozen=True)
class Wanted:
    """The words that captions must contain, and must not contain, to make an image relevant.

    with_words: the words of each added term; the captions must contain all of them. without: the
    words of each subtracted term; an image is irrelevant if its captions contain all words of one.
    """

    with_words: tuple[tuple[str, ...], ...]
    without: tuple[tuple[str, ...], ...]

    @property
    def kind(self) -> str:
        """The kind of query: "negated" if it subtracts, else "complex" or "simple" (one term)."""
        if self.without:
            return "negated"
        return "complex" if len(self.with_words) > 1 else "simple"


def wanted(query: Query) -> Wanted:
    """Return the words of a query.

    Raises InputError for a query that contains an image or a term without words, or that only
    subtracts.
    """
    if any(term.is_image for term in query.terms):
        raise InputError(
            f"query {query} contains an image, so captions cannot determine its relevant images; "
            "use words only"
        )
    words = [(tuple(plain_words(term.text)), term.weight) for term in query.terms]
    if not all(group for group, _ in words):
        raise InputError(f"each term of query {query} must contain a word; correct the query")
    added = tuple(group for group, weight in words if weight > 0)
    if not added:
        raise InputError(f"query {query} only subtracts; add at least one word")
    return Wanted(added, tuple(group for group, weight in words if weight < 0))


def relevant_images(query: Query, words: Sequence[set[str]]) -> np.ndarray:
    """Return whether each of I images is relevant to a query, as a Boolean array (I,).

    words: the words of each image's captions. The plural of a word counts as the word. Raises
    InputError in the same cases as `wanted`.
    """
    sought = wanted(query)

    def has(found: set[str], group: Iterable[str]) -> bool:
        return all(not found.isdisjoint(spellings(word)) for word in group)

    return np.array(
        [
            all(has(found, group) for group in sought.with_words)
            and not any(has(found, group) for group in sought.without)
            for found in words
        ],
        dtype=bool,
    )


def spellings(word: str) -> set[str]:
    """Return a word and its English plural: regular, except for the words in _IRREGULAR."""
    if word in _IRREGULAR:
        return {word, _IRREGULAR[word]}
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return {word, word + "es"}
    if word.endswith("y") and word[-2:-1] not in ("", *"aeiou"):
        return {word, word[:-1] + "ies"}
    return {word, word + "s"}


def read_queries(path: Path) -> tuple[str, ...]:
    """Read a text file of one query per line; empty lines and comments ("# ...") are skipped.

    Raises InputError, naming the line, for a query that cannot be parsed, that occurs twice or that
    `wanted` rejects. Also raises InputError for a file that cannot be read or has no queries.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text; save it as UTF-8"
        if problem := getattr(error, "strerror", None):
            reason = f"{problem}; check the path"
        raise InputError(f"query file {path} cannot be read: {reason}") from error
    queries: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("# "):
            continue
        try:
            query = parse(line.strip())
            wanted(query)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
        if str(query) in queries:
            raise InputError(f"{path}, line {number}: {query} occurs twice; remove one")
        queries.append(str(query))
    if not queries:
        raise InputError(f"{path} contains no queries; write one per line, such as dog + beach")
    return tuple(queries)


def standard_queries(unknown_words: Callable[[str], list[str]]) -> tuple[str, ...]:
    """Return the set in STANDARD with the largest number of queries that have only known words.

    unknown_words(text): the words of a text that the model does not know.
    """

    def known(queries: Sequence[str]) -> int:
        terms = ([term.text for term in parse(query).terms] for query in queries)
        return sum(not any(unknown_words(text) for text in texts) for texts in terms)

    return max(STANDARD, key=known)
