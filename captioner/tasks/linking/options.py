"""The options of the linking systems, except their model options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...options import Options, check_at_least, check_share, option
from ...text.options import TextVectorOptions


@dataclass(frozen=True)
class LinearTaskOptions(TextVectorOptions):
    """The sources of the image vectors and text vectors that are mapped."""

    image_vectors: Path | None = option(
        None, ".npy file of image vectors, one row per caption [pooled encoder features]"
    )


@dataclass(frozen=True)
class RegressionTaskOptions(TextVectorOptions):
    """The sources of the text vectors to predict, and of the image vectors to predict them from."""

    text_vectors: tuple[str, ...] = option(
        ("lsa",),
        "text vectors: counts, tf-idf, lsa, ppmi-svd, word2vec, fasttext (also ppmi-svd-tf-idf, "
        "...), doc2vec, lda, or the path of vectors or of a text model",
    )
    image_vectors: Path | None = option(
        None, ".npy file of image vectors, one row per caption [encoder features]"
    )


WORD2VEC = "word2vec"  # a value of --word-vectors
PPMI_IMAGE = "ppmi-image"  # PPMI and SVD of words in the captions of the same image
SEEN, HELD_OUT = "mAP_seen", "mAP_held_out"  # scores of the spatial embedding
QUERY_FLAGS = frozenset({"queries", "concepts", "failures"})  # of evaluation

# Favre 2017, who leaves the optimiser open: Adam at 1e-3, here with cosine decay.
FAVRE2017: dict[str, Any] = {
    **{"loss": "random-negative", "margin": 1.0, "similarity": "dot"},
    **{"image_scaling": "none", "image_grid": 1, "image_activation": "tanh", "text_layer": False},
    **{"word_sum": False},
    **{"dimensions": 256, "hidden_size": 256, "word_size": 100, "dropout": 0.0},
    **{"captions_per_image": 1, "captions_per_batch": 1, "max_words": 16, "text_min_count": 1},
    **{"short_texts": False, "opposites": (), "scale_inputs": False},
    **{"batch_size": 64, "epochs": 10, "patience": 10, "learning_rate": 1e-3},
    **{"weight_decay": 0.0, "warmup": 0.0, "average": 0.0},
}
RECIPES = {"favre2017": FAVRE2017}  # values of --recipe


@dataclass(frozen=True)
class JointTaskOptions(Options):
    """The captions, vocabulary, word vectors and sentence vectors of the joint embedding."""

    recipe: str | None = option(
        None, "published recipe, whose values override the defaults", choices=tuple(RECIPES)
    )
    captions_per_image: int | None = option(
        None, "maximum number of captions per image to train on, in order [all]"
    )
    captions_per_batch: int | None = option(
        None,
        "maximum number of captions per image in a batch; an epoch still uses all [1 for a "
        "frozen encoder or image vectors, otherwise all]",
    )
    text_min_count: int = option(
        2, "minimum word count in the training captions; rarer words are unknown"
    )
    max_words: int = option(50, "maximum text length in words; longer texts are truncated")
    short_texts: bool = option(
        True, "also train on a short text for each caption, made of some of its words"
    )
    opposites: tuple[str, ...] = option(
        ("left/right", "above/below", "top/bottom"),
        "pairs of words; a caption with the words of a pair exchanged is a further negative text "
        "of its image",
    )
    word_vectors: str | None = option(
        None, "initial word vectors: word2vec, or a GloVe or word2vec file [random]"
    )
    text_vectors: tuple[str, ...] = option(
        (), "sentence vectors to use in addition to the GRU, as in --system linear"
    )
    text_dimensions: int = option(
        300, "number of dimensions (for lda, topics) of fitted sentence vectors"
    )
    image_vectors: Path | None = option(
        None, ".npy file of image vectors, one row per caption [pooled encoder features]"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "text_min_count", "max_words", "text_dimensions")
        for pair in self.opposites:
            read_pair(pair)
        for name in ("captions_per_image", "captions_per_batch"):
            if getattr(self, name) is not None:
                check_at_least(self, 1, name)


def read_pair(pair: str) -> tuple[str, str]:
    """Return the two words of a pair such as "left/right"; raise InputError for other text."""
    first, _, second = pair.partition("/")
    if not first or not second or "/" in second or first == second:
        raise InputError(
            f"opposites must be pairs of different words such as left/right, got {pair!r}"
        )
    return first, second


RANDOM = "random"  # a value of --word-vectors


@dataclass(frozen=True)
class McnnTaskOptions(Options):
    """The vocabulary and word vectors of the multimodal CNN, and its validation."""

    text_min_count: int = option(
        2, "minimum word count in the training captions; rarer words are unknown"
    )
    max_words: int = option(30, "maximum text length in words; longer texts are truncated")
    word_vectors: str = option(
        WORD2VEC, "initial word vectors: word2vec, random, or a GloVe or word2vec file"
    )
    val_images: int = option(
        200, "maximum number of val images, evenly spaced, whose pairs are scored in each epoch"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "text_min_count", "max_words", "val_images")


@dataclass(frozen=True)
class SpatialTaskOptions(TextVectorOptions):
    """The vectors of the labels, where the labels come from, and which of them are held out."""

    text_vectors: tuple[str, ...] = option(
        ("ppmi-image-tf-idf",),
        "word vectors of labels: ppmi-image, ppmi-svd, lsa, word2vec, fasttext, or a GloVe or "
        "word2vec file; with the suffix -tf-idf, rare words of a phrase count more",
    )
    text_dimensions: int = option(300, "number of dimensions of fitted word vectors")
    tags: Path | None = option(
        None, "source of labels: a CSV file of tags, or NUS-WIDE's directory [caption words]"
    )
    min_images: int = option(3, "minimum number of training images per label")
    labels_per_image: int = option(
        50, "minimum number of labels per image in a step: all its own, then random ones"
    )
    held_out: float = option(0.1, "fraction of labels to hold out from training")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "min_images")
        check_at_least(self, 2, "labels_per_image")
        check_share(self, "held_out")
