"""Contradictions: sentences with one word that contradicts what the image shows."""

import random
import re
from collections.abc import Collection, Mapping

from ..text.content_words import stem
from ..text.tokenizer import split_words

_GROUPS = """
    man woman
    men women
    boy girl
    boys girls
    he she
    black white red blue green yellow orange pink purple brown
    two three four
    snow sand grass
    beach street field
    running standing sitting
    runs stands sits
    bike skateboard
    soccer baseball basketball tennis
    large small
    inside outside
"""
# Each word excludes the others of its group.
GROUPS = tuple(tuple(line.split()) for line in _GROUPS.strip().splitlines())
_GROUP_OF = {word: group for group in GROUPS for word in group}
_WORD = re.compile(r"[A-Za-z]+")
_ARTICLE = re.compile(r"\b([Aa])n?( +)$")


def contradict(
    sentence: str, own: Collection[str], counts: Mapping[str, int], rng: random.Random
) -> str | None:
    """Return the sentence with one random word replaced by another word of its group.

    own: sentences that are true of the same image; words that they use, in any form, are not used
    as replacements. counts: how often each word occurs in the data set. Frequent words replace
    others more often, so that the contradictions have about the same words as true sentences.
    Returns None if no word can be replaced.
    """
    true = {stem(word) for text in own for word in split_words(text)}
    choices = [
        (match, replacement)
        for match in _WORD.finditer(sentence)
        for replacement in _GROUP_OF.get(match[0].lower(), ())
        if stem(replacement) not in true
    ]
    if not choices:
        return None
    words = list(dict.fromkeys(match.start() for match, _ in choices))
    chosen = rng.choice(words)  # first the word, so that large groups are not drawn more often
    fitting = [(match, word) for match, word in choices if match.start() == chosen]
    weights = [counts.get(word, 0) + 1 for _, word in fitting]
    match, replacement = rng.choices(fitting, weights)[0]
    return replace_word(sentence, match.start(), match.end(), replacement)


def replace_word(sentence: str, start: int, end: int, word: str) -> str:
    """Return the sentence with `word` at start:end, its capital kept and "a" or "an" adapted."""
    before, old = sentence[:start], sentence[start:end]
    if article := _ARTICLE.search(before):
        spelled = article[1] + "n" * (word[0] in "aeiou") + article[2]
        before = before[: article.start()] + spelled
    return before + (word.capitalize() if old[0].isupper() else word) + sentence[end:]
