"""The options of the linking models."""

from dataclasses import dataclass

from ...errors import InputError
from ...options import Options, check_at_least, check_share, option

SOLVERS = ("cca", "ranking")


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


LOSSES = ("infonce", "hinges", "hardest", "random-negative")
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
        "infonce, hinges (over all negative pairs), hardest (over the hardest negatives) or "
        "random-negative (the hinge of one random text)",
        choices=LOSSES,
    )
    temperature: float = option(0.07, "infonce: initial temperature")
    margin: float = option(
        0.2, "all losses but infonce: margin between the scores of positive and negative pairs"
    )
    similarity: str = option(
        "cosine",
        "score of a pair: cosine, or dot (product of embeddings of any norm)",
        choices=SIMILARITIES,
    )
    image_scaling: str = option(
        "sqrt",
        "scaling of pooled features: sqrt (signed square roots of norm 1) or none",
        choices=SCALINGS,
    )
    image_grid: int = option(
        1, "rows and columns of the grid in which features are averaged, to keep positions"
    )
    image_activation: str = option(
        "none", "activation after the linear layer of images", choices=ACTIVATIONS
    )
    word_sum: bool = option(True, "read the sum of the word embeddings beside the GRU's state")
    text_layer: bool = option(True, "map the GRU's state linearly instead of using it as embedding")
    warm_up_epochs: int = option(3, "hardest: number of initial epochs that use all negative pairs")
    dropout: float = option(0.3, "dropout rate of image vectors and sentence vectors")
    word_dropout: float = option(
        0.3, "mean share of words left out of a text in training, at most 0.5"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "dimensions", "word_size", "hidden_size", "image_grid")
        check_at_least(self, 0, "margin", "warm_up_epochs")
        check_at_least(self, 0.001, "temperature")
        if not self.text_layer and self.word_sum:
            raise InputError("the sum of word embeddings needs a text layer; pass --no-word-sum")
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
        "ranking (hinges over all negative pairs), contrastive (InfoNCE) or bce (cross-entropy of "
        "sigmoids with text vectors scaled to 0 to 1)",
        choices=REGRESSION_LOSSES,
    )
    hidden_size: int = option(0, "size of a hidden layer; 0: none")
    margin: float = option(0.2, "ranking: cosine margin between positive and negative pairs")
    temperature: float = option(0.05, "contrastive: initial temperature")
    dropout: float = option(0.0, "dropout rate of image vectors and the hidden layer")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 0, "hidden_size", "margin")
        check_at_least(self, 0.001, "temperature")
        check_share(self, "dropout")


@dataclass(frozen=True)
class SpatialOptions(Options):
    """Blocks and head of the spatial embedding."""

    blocks: int = option(5, "number of embeddings of each region")
    head_size: int = option(8, "number of hidden units that combine the cosines of the blocks")
    gain: float = option(10.0, "initial factor of the cosines")
    max_share: float = option(
        0.5, "initial share of the maximum of a map in the score; the rest is its mean"
    )
    dropout: float = option(0.0, "dropout rate of the channels of feature maps")
    cell_dropout: float = option(
        0.9, "share of cells that are hidden in training, so that maps cover whole objects"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "blocks", "head_size")
        check_at_least(self, 0.1, "gain")
        check_share(self, "dropout", "cell_dropout")
        if not 0 < self.max_share < 1:
            raise InputError(f"max_share must be above 0 and below 1, got {self.max_share}")
