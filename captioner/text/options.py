"""Options for sentence vectors."""

from dataclasses import dataclass

from ..errors import InputError
from ..options import Options, check_at_least, option

WEIGHTED = "-tf-idf"  # suffix of word vectors, also of a file, whose mean is weighted by tf-idf
WITHOUT_EXTRA = ("counts", "tf-idf", "lsa", "ppmi-svd", "ppmi-svd-tf-idf")
GENSIM = (
    *("word2vec", "word2vec-tf-idf", "fasttext", "fasttext-tf-idf", "doc2vec", "lda"),
)  # trained with gensim
FITTED = (*WITHOUT_EXTRA, *GENSIM)  # on the training captions
REDUCED = FITTED[2:]  # with a chosen number of dimensions


@dataclass(frozen=True)
class TextVectorOptions(Options):
    """Options of sentence vectors: their sources, and how they are fitted on the training captions.

    The vectors of several sources are concatenated. A source is one of FITTED, the directory of a
    sentence encoder, the run or checkpoint of a captioner, a .npy file with one row per caption
    (across all splits, in reading order), or a GloVe or word2vec file. The vectors of the latter
    are summed over the words of a sentence, weighted by inverse document frequency if the suffix
    WEIGHTED follows the file's name.
    """

    text_vectors: tuple[str, ...] = option(
        ("tf-idf",),
        "sentence vectors: counts, tf-idf, lsa, ppmi-svd, word2vec, fasttext (also "
        "ppmi-svd-tf-idf, ...), doc2vec, lda, or the path of vectors or of a text model",
    )
    text_min_count: int = option(
        2, "minimum word count in the training captions; rarer words are unknown"
    )
    text_dimensions: int = option(300, "number of dimensions (for lda, topics) of fitted vectors")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "text_min_count", "text_dimensions")
        if not self.text_vectors:
            raise InputError(f"text_vectors is empty; choose {', '.join(FITTED)} or a path")
        for source in self.text_vectors:
            if self.text_vectors.count(source) > 1:
                raise InputError(f"text_vectors lists {source!r} twice; list it once")
