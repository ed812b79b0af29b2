"""The options of relation models: their heads, sizes, losses and regularisation."""

import itertools
import math
from dataclasses import dataclass

from ...errors import InputError
from ...options import Options, check_at_least, check_share, option
from ..linking.options import SCALINGS

MAX_SENTENCES, MAX_WORDS = 50, 40  # of a text, and of a sentence
SUPPORTED = 0.3  # score from which an image supports a word; chosen on the demo
LOSSES = ("cross-entropy", "ordinal")
THUMBNAIL_STEP = 4  # the image decoder enlarges a small map twice by two


@dataclass(frozen=True)
class Head:
    """A label that is predicted: its name, and its values in ascending order."""

    name: str
    levels: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Parse a head such as "sc=-1,0,1"; raise InputError for text in another form."""
        name, _, values = text.partition("=")
        try:
            levels = tuple(float(value) for value in values.split(","))
        except ValueError:
            levels = ()
        ascending = all(a < b for a, b in itertools.pairwise(levels))
        if not name.isidentifier() or len(levels) < 2 or not ascending:
            raise InputError(
                "heads must be names (letters, digits and _), each with = and at least two numbers "
                f"in ascending order, such as sc=-1,0,1, got {text!r}"
            )
        if not all(map(math.isfinite, levels)):
            raise InputError(f"the values of heads must be finite, got {text!r}")
        return cls(name, levels)

    def index(self, value: float) -> int:
        """Return the position of a value among the levels; raise InputError if it is not one."""
        for position, level in enumerate(self.levels):
            if math.isclose(level, value, abs_tol=1e-6):
                return position
        levels = ", ".join(f"{level:g}" for level in self.levels)
        raise InputError(
            f"the label {self.name} must be one of {levels}, got {value:g}; correct it, or train "
            "with other values in --heads"
        )


@dataclass(frozen=True)
class RelationOptions(Options):
    """Heads, sizes, losses and regularisation of a relation model."""

    heads: str = option(
        "cmi=0,0.25,0.5,0.75,1 sc=-1,-0.5,0,0.5,1",
        "labels to predict, separated by spaces, each with its values in ascending order",
    )
    loss: str = option(
        "cross-entropy",
        "cross-entropy, or ordinal (squared distance of cumulative distributions)",
        choices=LOSSES,
    )
    word_size: int = option(128, "size of word embeddings")
    sentence_size: int = option(256, "size of sentence vectors and of the image embedding")
    article_size: int = option(512, "size of the article embedding")
    head_size: int = option(64, "size of the hidden layer before the heads, and number of facts")
    support_groups: int = option(
        16,
        "number of products of each word with the image, which divides sentence_size; 0: sentences "
        "are not compared with the image, as in the paper",
    )
    image_scaling: str = option(
        "sqrt",
        "scaling of image features: sqrt (signed square roots of norm 1) or none",
        choices=SCALINGS,
    )
    image_grid: int = option(
        1,
        "number of rows and columns of the grid in whose cells features are averaged; each word "
        "uses the best cell",
    )
    image_hidden: int = option(
        0, "size of a hidden layer between features and image embeddings; 0: no hidden layer"
    )
    thumbnail_size: int = option(32, "side length of the decoded image in pixels, a multiple of 4")
    alignment: float = option(
        1.0, "autoencoder: weight of the contrastive loss of sentences and images; 0: none"
    )
    dropout: float = option(0.3, "classifier: dropout rate of the article embedding")
    image_dropout: float = option(
        0.7,
        "dropout rate of image features; high, so that training captions are not memorised",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("word_size", "sentence_size", "article_size", "head_size")
        check_at_least(self, 1, *sizes, "image_grid")
        check_at_least(self, 0, "alignment", "support_groups", "image_hidden")
        check_share(self, "dropout", "image_dropout")
        if self.support_groups and self.sentence_size % self.support_groups:
            raise InputError(
                f"support_groups must divide sentence_size {self.sentence_size}, got "
                f"{self.support_groups}"
            )
        if self.thumbnail_size < THUMBNAIL_STEP or self.thumbnail_size % THUMBNAIL_STEP:
            raise InputError(
                f"thumbnail_size must be a multiple of {THUMBNAIL_STEP} above 0, got "
                f"{self.thumbnail_size}"
            )
        names = [head.name for head in self.parsed_heads]
        if not names:
            raise InputError("heads is empty; pass at least one label, such as sc=-1,0,1")
        if len(set(names)) < len(names):
            raise InputError(f"heads must have different names, got {', '.join(names)}")

    @property
    def parsed_heads(self) -> tuple[Head, ...]:
        """The heads; raises InputError as `Head.parse` does."""
        return tuple(map(Head.parse, self.heads.split()))
