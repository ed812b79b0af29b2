"""A note on the words of sentences that are unknown to a text model."""

from collections import Counter
from collections.abc import Callable, Sequence

SHOWN = 10  # words


def describe_unknown_words(
    unknown_words: Callable[[str], list[str]], sentences: Sequence[str]
) -> str:
    """Return a line that counts the unknown words, the most frequent first; empty if none.

    unknown_words(sentence): the words of a sentence that do not contribute to its vector.
    """
    counts: Counter[str] = Counter()
    affected = 0
    for sentence in sentences:
        words = unknown_words(sentence)
        counts.update(words)
        affected += bool(words)
    if not counts:
        return ""
    shown = ", ".join(f"{word!r} ({count:,})" for word, count in counts.most_common(SHOWN))
    more = f" and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else ""
    return (
        f"note: {affected:,} of {len(sentences):,} texts have words that the sentence encoder does "
        f"not know: {shown}{more}"
    )
