"""Random corpora of captions and references, as hypothesis strategies."""

from hypothesis import strategies as st

Corpus = tuple[list[list[str]], list[list[list[str]]]]


def corpora(shortest: int, longest: int = 9) -> st.SearchStrategy[Corpus]:
    """Captions of at least `shortest` words, with references of any length, ties included."""
    words = st.sampled_from(["a", "dog", "runs", "n't"])
    caption = st.lists(words, min_size=shortest, max_size=longest)
    references = st.lists(st.lists(words, max_size=longest), min_size=1, max_size=5)
    pairs = st.lists(st.tuples(caption, references), min_size=1, max_size=6)
    return pairs.map(lambda several: ([h for h, _ in several], [r for _, r in several]))


def as_sentences(corpus: Corpus) -> tuple[dict[int, str], dict[int, list[str]]]:
    hypotheses, references = corpus
    return (
        {i: " ".join(words) for i, words in enumerate(hypotheses)},
        {i: [" ".join(words) for words in several] for i, several in enumerate(references)},
    )
