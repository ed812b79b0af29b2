"""The options of the captioning models."""

from dataclasses import dataclass

from ...options import Options, check_at_least, check_share, option


@dataclass(frozen=True)
class ModelOptions(Options):
    """Options of a captioning model: type, sizes and regularisation."""

    attention: bool = option(False, "Show, Attend and Tell instead of Show and Tell")
    hard_attention: bool = option(False, "attention trained on one sampled position per word")
    embedding_size: int = option(300, "size of word embeddings and output layer")
    hidden_size: int = option(512, "size of the LSTM's hidden state")
    annotation_size: int = option(
        512, "number of channels of the projected feature map; 0: no projection"
    )
    attention_size: int = option(256, "size of the attention's hidden layer")
    dropout: float = option(
        0.3, "dropout rate of embeddings, annotations, hidden states and outputs"
    )
    label_smoothing: float = option(0.1, "target probability spread over the vocabulary")
    coverage_weight: float = option(0.01, "weight of the doubly stochastic attention loss")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "embedding_size", "hidden_size", "attention_size")
        check_share(self, "dropout", "label_smoothing")
        check_at_least(self, 0, "annotation_size", "coverage_weight")

    @property
    def name(self) -> str:
        kind = "hard-attention" if self.hard_attention else "attention"
        return kind if self.attention else "show-and-tell"
