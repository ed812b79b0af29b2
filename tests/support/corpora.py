"""Random corpora of captions and references, as hypothesis strategies."""

from hypothesis import strategies as st

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def corpora(shortest: int, longest: int = 9) -> st.SearchStrategy[Corpus]:
    """Captions of `shortest` to `longest` words with references of any length, ties included."""
    words = st.sampled_from(["a", "dog", "runs", "n't"])
    caption = st.lists(words, min_size=shortest, max_size=longest)
    references = st.lists(st.lists(words, max_size=longest), min_size=1, max_size=5)
    pairs = st.lists(st.tuples(caption, references), min_size=1, max_size=6)
    return pairs.map(lambda drawn: ([h for h, _ in drawn], [r for _, r in drawn]))


def as_sentences(corpus: Corpus) -> tuple[dict[int, str], dict[int, list[str]]]:
    """Captions and references of a corpus as sentences, keyed by image."""
    hypotheses, references = corpus
    return (
        {i: " ".join(words) for i, words in enumerate(hypotheses)},
        {i: [" ".join(words) for words in sentences] for i, sentences in enumerate(references)},
    )
