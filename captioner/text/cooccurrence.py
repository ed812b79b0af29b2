"""Words that occur together with given words more often than elsewhere.

Shapes: N documents, such as all captions of an image.
"""

from collections import Counter
from collections.abc import Collection, Sequence

MIN_DOCUMENTS = 5  # that contain the given words and another one, so that chance does not decide


class Cooccurrence:
    """Measures how much more often words occur in documents that contain given words."""

    def __init__(self, documents: Sequence[Collection[str]]) -> None:
        """Count words in N documents. documents: the words of each document."""
        self._documents = [frozenset(words) for words in documents]
        self._counts = Counter(word for words in self._documents for word in words)

    def lifts(self, given: Sequence[Collection[str]]) -> dict[str, float]:
        """Return the lift of each word that occurs together with the given words, largest first.

        given: the spellings of each given word, at least one of which must occur. The lift of a
        word is the fraction of the documents with the given words that contain it, divided by the
        fraction of all documents that contain it; a lift above 1 means that it occurs more often
        with the given words than elsewhere. Given words are left out, and so are words that occur
        in fewer than MIN_DOCUMENTS of the documents with the given words.
        """
        spellings = {word for words in given for word in words}
        chosen = [
            words for words in self._documents if all(not words.isdisjoint(each) for each in given)
        ]
        counts = Counter(word for words in chosen for word in words - spellings)
        total = len(self._documents)
        found = {
            word: (count / len(chosen)) / (self._counts[word] / total)
            for word, count in counts.items()
            if count >= MIN_DOCUMENTS
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
