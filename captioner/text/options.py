"""Options for sentence vectors."""

from dataclasses import dataclass

from ..errors import InputError
from ..options import Options, check_at_least, option

REDUCED = ("lsa", "word2vec", "word2vec-tf-idf")  # with a chosen number of dimensions
FITTED = ("counts", "tf-idf", *REDUCED)  # on the training captions


@dataclass(frozen=True)
class TextVectorOptions(Options):
    """Options of sentence vectors: their sources, and how they are fitted on the training captions.

    The vectors of several sources are concatenated. A source is one of FITTED; a GloVe or word2vec
    file, whose vectors are summed over the words of a sentence; the directory of a sentence
    encoder; a captioner's run or checkpoint; or a .npy file with one row per caption, across all
    splits, in reading order.
    """

    text_vectors: tuple[str, ...] = option(
        ("tf-idf",),
        "sentence vectors: counts, tf-idf, lsa, word2vec, word2vec-tf-idf, or a file or directory "
        "of a text model",
    )
    text_min_count: int = option(
        2, "minimum word count in the training captions; rarer words are unknown"
    )
    text_dimensions: int = option(300, "number of dimensions of lsa and word2vec")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "text_min_count", "text_dimensions")
        if not self.text_vectors:
            raise InputError(f"text_vectors is empty; choose {', '.join(FITTED)} or a path")
        for source in self.text_vectors:
            if self.text_vectors.count(source) > 1:
                raise InputError(f"text_vectors lists {source!r} twice; list it once")
