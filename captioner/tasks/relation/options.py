"""The options of the relation task, except its model options."""

from dataclasses import dataclass

from ...models.relation.options import MAX_SENTENCES, MAX_WORDS
from ...options import Options, check_at_least, option

AUTOENCODER = "autoencoder"
RECONSTRUCTION, ACCURACY, MACRO_F1 = "reconstruction", "accuracy", "macro_f1"  # names of scores
RECIPES: dict[str, dict[str, int | float | str]] = {
    AUTOENCODER: {
        **{"watch": RECONSTRUCTION, "epochs": 5, "learning_rate": 3e-3, "batch_size": 64},
        **{"image_dropout": 0.3},
    }
}


@dataclass(frozen=True)
class RelationTaskOptions(Options):
    """The model to train, its texts per image and epoch, and the vocabulary and length limits."""

    recipe: str | None = option(
        None,
        "autoencoder: train the autoencoder, from whose run a classifier can start [classifier]",
        choices=tuple(RECIPES),
    )
    texts_per_image: int | None = option(
        None, "classifier: maximum number of texts per image in an epoch, drawn at random"
    )
    text_min_count: int = option(
        2, "minimum word count in the distinct training sentences; rarer words are unknown"
    )
    max_sentences: int = option(
        MAX_SENTENCES, "maximum text length in sentences; longer texts are truncated"
    )
    max_words: int = option(
        MAX_WORDS, "maximum sentence length in words; longer sentences are truncated"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "texts_per_image", "text_min_count", "max_sentences", "max_words")
