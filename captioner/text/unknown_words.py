"""A note on the words of sentences that are unknown to a text model."""

from collections import Counter
from collections.abc import Callable, Sequence

SHOWN = 10  # words


def describe_unknown_words(
    unknown_words: Callable[[str], list[str]],
    sentences: Sequence[str],
    model: str = "the sentence encoder",
) -> str:
    """Return a note that counts the unknown words, most frequent first, or "" if there are none.

    unknown_words(sentence): the words of a sentence that the model does not know. model: what
    the note calls the model.
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
    contain = "contains" if affected == 1 else "contain"
    return (
        f"note: {affected:,} of {len(sentences):,} texts {contain} words that are unknown to "
        f"{model}: {shown}{more}"
    )
