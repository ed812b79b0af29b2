"""The captioning models' options; the models themselves are elsewhere."""

from dataclasses import dataclass

from ...options import check_at_least, check_share, option


@dataclass(frozen=True)
class ModelOptions:
    """Which of the two models, its sizes and its regularisation."""

    attention: bool = option(False, "Show, Attend and Tell instead of Show and Tell")
    hard_attention: bool = option(False, "attention learned by looking at one drawn place per word")
    embedding_size: int = option(300, "size of a word's embedding, shared with the output layer")
    hidden_size: int = option(512, "size of the LSTM")
    annotation_size: int = option(512, "size of what a place of the map becomes; 0: as it is")
    attention_size: int = option(256, "size of the attention's hidden layer")
    dropout: float = option(0.3, "dropout on embeddings, annotations and the output layer's input")
    label_smoothing: float = option(0.1, "share of each target spread over the vocabulary")
    coverage_weight: float = option(0.01, "weight of doubly stochastic attention")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "embedding_size", "hidden_size", "attention_size")
        check_share(self, "dropout", "label_smoothing")
        check_at_least(self, 0, "annotation_size", "coverage_weight")

    @property
    def name(self) -> str:
        kind = "hard-attention" if self.hard_attention else "attention"
        return kind if self.attention else "show-and-tell"
