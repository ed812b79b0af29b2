"""The options of the linking models."""

from dataclasses import dataclass

from ...errors import InputError
from ...options import Options, check_at_least, check_share, option

SOLVERS = ("cca", "ranking")


OPEN_CLIP = "open_clip:"  # the names of open_clip's models begin with this
CLIP = "clip"  # the task of their checkpoints


@dataclass(frozen=True)
class LinearOptions(Options):
    """The solver of the two linear maps, its parameters, and the size of the shared space."""

    solver: str = option(
        "cca", "solver: cca (closed form) or ranking (trained with a ranking loss)", choices=SOLVERS
    )
    dimensions: int = option(300, "maximum number of dimensions of the shared space")
    ridge: float = option(1.0, "cca: ridge on both covariances, as a multiple of the mean variance")
    correlation_power: float = option(
        1.0, "cca: exponent of the correlation that scales each dimension"
    )
    margin: float = option(0.2, "ranking: cosine margin between positive and negative pairs")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "dimensions")
        check_at_least(self, 0, "ridge", "correlation_power", "margin")


RANDOM_NEGATIVE = "random-negative"
LOSSES = ("infonce", "hinges", "hardest", RANDOM_NEGATIVE)
SIMILARITIES = ("cosine", "dot")
ACTIVATIONS = ("none", "tanh")
SCALINGS = ("sqrt", "none")


@dataclass(frozen=True)
class JointOptions(Options):
    """Sizes, loss and regularisation of the joint embedding."""

    dimensions: int = option(512, "number of dimensions of the shared space")
    word_size: int = option(300, "size of word embeddings")
    hidden_size: int = option(128, "size of the GRU's hidden state")
    loss: str = option(
        "infonce",
        "infonce, hinges (all negative pairs), hardest (only the hardest negatives) or "
        "random-negative (one random negative text per pair)",
        choices=LOSSES,
    )
    temperature: float = option(0.07, "infonce: initial temperature")
    subtraction_weight: float = option(
        0.25, "infonce: weight of queries A - B, a short text minus a word its image does not have"
    )
    margin: float = option(
        0.2, "all losses but infonce: margin between the scores of positive and negative pairs"
    )
    similarity: str = option(
        "cosine",
        "score of a pair: cosine, or dot (dot product of embeddings that are not normalised)",
        choices=SIMILARITIES,
    )
    image_scaling: str = option(
        "sqrt",
        "scaling of averaged features: sqrt (signed square roots, scaled to norm 1) or none",
        choices=SCALINGS,
    )
    image_grid: int = option(
        1, "number of rows and columns of the grid in whose cells features are averaged"
    )
    image_activation: str = option(
        "none", "activation after the linear image layer", choices=ACTIVATIONS
    )
    scale_inputs: bool = option(
        False,
        "multiply the GRU's inputs by the square root of the size of word embeddings, so that the "
        "order of words counts more",
    )
    word_sum: bool = option(True, "append the sum of the word embeddings to the GRU's state")
    text_layer: bool = option(True, "linear layer that maps the GRU's state to the embedding")
    warm_up_epochs: int = option(3, "hardest: number of initial epochs that use all negative pairs")
    dropout: float = option(0.3, "dropout rate of image vectors and of the text layer's input")
    word_dropout: float = option(
        0.0, "mean fraction of words dropped from a text in training, at most 0.5"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "dimensions", "word_size", "hidden_size", "image_grid")
        check_at_least(self, 0, "margin", "warm_up_epochs", "subtraction_weight")
        check_at_least(self, 0.001, "temperature")
        if not self.text_layer and self.word_sum:
            raise InputError(
                "the sum of word embeddings needs a text layer; pass --no-word-sum or --text-layer"
            )
        if not self.text_layer and self.hidden_size != self.dimensions:
            raise InputError(
                "without a text layer, the hidden state is the embedding of a text: hidden_size is "
                f"{self.hidden_size} and dimensions {self.dimensions}; make them equal"
            )
        check_share(self, "dropout")
        if not 0 <= self.word_dropout <= 0.5:
            raise InputError(f"word_dropout must be from 0 to 0.5, got {self.word_dropout}")


REGRESSION_LOSSES = ("ranking", "contrastive", "bce")


@dataclass(frozen=True)
class RegressionOptions(Options):
    """Loss, layers and regularisation of the regression of text vectors."""

    loss: str = option(
        "ranking",
        "ranking (hinges of all negative pairs), contrastive (InfoNCE) or bce (binary "
        "cross-entropy with text vectors scaled to [0, 1] as targets)",
        choices=REGRESSION_LOSSES,
    )
    hidden_size: int = option(0, "size of the hidden layer; 0: no hidden layer")
    margin: float = option(0.2, "ranking: cosine margin between positive and negative pairs")
    temperature: float = option(0.05, "contrastive: initial temperature")
    dropout: float = option(0.0, "dropout rate of image vectors and of the hidden layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "hidden_size", "margin")
        check_at_least(self, 0.001, "temperature")
        check_share(self, "dropout")


@dataclass(frozen=True)
class SpatialOptions(Options):
    """Blocks, head, gain and dropout of the spatial embedding."""

    blocks: int = option(5, "number of blocks, each with an embedding of every region")
    head_size: int = option(8, "number of hidden units that combine the cosines of the blocks")
    gain: float = option(10.0, "initial value of the learned factor of the cosines")
    max_share: float = option(
        0.5, "initial share of a map's maximum in the score; its mean has the rest"
    )
    dropout: float = option(0.0, "dropout rate of the channels of feature maps")
    cell_dropout: float = option(
        0.9, "fraction of cells dropped in training, so that maps cover whole objects"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "blocks", "head_size")
        check_at_least(self, 0.1, "gain")
        check_share(self, "dropout", "cell_dropout")
        if not 0 < self.max_share < 1:
            raise InputError(f"max_share must be above 0 and below 1, got {self.max_share}")


LEVELS = ("word", "phrase", "long-phrase", "sentence")
MCNN_LOSSES = ("infonce", "hinges")
# Of a text in a batch: fewer at the levels at which a pair costs more; None: all.
NEGATIVES = {"word": 16, "phrase": 32, "long-phrase": None, "sentence": None}
PAIR_MAPS = 200  # of a convolution that is computed for each pair, unless a number is given


@dataclass(frozen=True)
class McnnOptions(Options):
    """Level, sizes, loss and regularisation of the multimodal CNN."""

    level: str = option(
        "sentence",
        "layer that reads the image: word, phrase or long-phrase (the first, second or third "
        "convolution), or sentence (the hidden layer after them)",
        choices=LEVELS,
    )
    word_size: int = option(100, "size of word embeddings")
    scale_inputs: bool = option(
        False,
        "multiply the words' inputs by the square root of the size of word embeddings, so that "
        "embeddings are trained faster",
    )
    image_dimensions: int = option(256, "number of dimensions of the image vector")
    maps: int = option(
        200, "number of feature maps of the convolutions up to the one that reads the image"
    )
    pair_maps: int | None = option(
        None,
        "number of feature maps of those above it, which are computed for each pair [that of "
        f"--maps, at most {PAIR_MAPS}]",
    )
    hidden_size: int = option(400, "size of the hidden layer")
    image_grid: int = option(
        1, "number of rows and columns of the grid in whose cells features are averaged"
    )
    loss: str = option(
        "infonce", "infonce, or hinges (the paper's margin loss)", choices=MCNN_LOSSES
    )
    temperature: float = option(0.2, "infonce: temperature, by which scores are divided")
    margin: float = option(0.5, "hinges: margin between the scores of positive and negative pairs")
    negatives: int | None = option(
        None,
        "maximum number of negative images of a text in a batch [16 at the level word, 32 at "
        "phrase, all at the others]",
    )
    dropout: float = option(0.2, "dropout rate of the inputs of all layers; infonce: but the last")
    word_dropout: float = option(
        0.1, "mean fraction of words dropped from a text in training, at most 0.5"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = ("word_size", "image_dimensions", "maps", "hidden_size", "image_grid")
        check_at_least(self, 1, *sizes)
        check_at_least(self, 0, "margin")
        check_at_least(self, 0.001, "temperature")
        for name in ("pair_maps", "negatives"):
            if getattr(self, name) is not None:
                check_at_least(self, 1, name)
        check_share(self, "dropout")
        if not 0 <= self.word_dropout <= 0.5:
            raise InputError(f"word_dropout must be from 0 to 0.5, got {self.word_dropout}")

    @property
    def maps_above(self) -> int:
        """The number of feature maps of the convolutions above the one that reads the image."""
        return min(self.maps, PAIR_MAPS) if self.pair_maps is None else self.pair_maps

    @property
    def most_negatives(self) -> int | None:
        """The maximum number of negative images of a text in a batch; None if all are negatives."""
        return NEGATIVES[self.level] if self.negatives is None else self.negatives
