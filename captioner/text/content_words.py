"""Content words: the words of captions that can serve as labels of an image."""

from collections import defaultdict
from collections.abc import Iterable

# Function words, and words of captions that describe no part of an image.
_FUNCTION_WORDS = frozenset(
    "a about above across after against all along also an and another any are around as at away "
    "back be because been before behind being below beside between both by can could do does doing "
    "down during each for from front further had has have having he her here hers him his how i if "
    "in inside into is it its itself just like many more most near next no nor not of off on onto "
    "one or other others out outside over own past several she side so some something such than "
    "that the their them then there these they this those through to together toward towards under "
    "until up upon very was way we were what when where which while who whose will with without "
    "you your".split()
)
_ENDINGS = ("ing", "ies", "ied", "es", "ed", "s", "y", "e")
_SHORTEST = 3  # letters of a stem


def is_content_word(word: str) -> bool:
    """Return whether a lower-case word has at least two letters and is not a function word."""
    return sum(map(str.isalpha, word)) > 1 and word not in _FUNCTION_WORDS


def stem(word: str) -> str:
    """Return the stem of a lower-case English word: the word without its ending.

    Singular and plural, and most forms of a verb, share a stem: "run", "runs" and "running". The
    rule is coarse: some unrelated words share a stem, too.
    """
    for ending in _ENDINGS:
        short = word.removesuffix(ending)
        if short != word and len(short) >= _SHORTEST and not (ending == "s" and short[-1] in "su"):
            word = short
            break
    doubled = len(word) > _SHORTEST and word[-1] == word[-2] and word[-1] not in "aeiouls"
    return word[:-1] if doubled else word


def families(words: Iterable[str]) -> list[list[str]]:
    """Group words or phrases that have the same stems; groups are in order of first appearance."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for word in words:
        found[tuple(map(stem, word.split()))].append(word)
    return list(found.values())
