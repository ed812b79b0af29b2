"""Sentence vectors by a transformer in a local directory, such as all-MiniLM-L6-v2.

The directory is laid out as sentence-transformers does: `config.json` of a BERT encoder,
`model.safetensors`, `tokenizer.json`, and mean pooling. Shapes: B sentences, T tokens,
Y dimensions, A attention heads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

BATCH_SIZE = 64
MAX_TOKENS = 128


@dataclass(frozen=True)
class TransformerEncoder:
    """Mean of the last hidden states of a BERT encoder, scaled to unit length.

    Devlin et al. 2019; pooled as in Reimers and Gurevych 2019, section 3. Read one by
    `read_transformer`. Every word is known: unknown ones are split into pieces.
    """

    directory: Path
    weights: dict[str, Tensor]
    layers: int
    heads: int
    epsilon: float
    tokenizer: Any

    @property
    def dimensions(self) -> int:
        return int(self.weights["embeddings.word_embeddings.weight"].shape[1])

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Rows (N, Y), float32, of unit length. Sentences of like length are encoded together."""
        rows = np.zeros((len(sentences), self.dimensions), dtype=np.float32)
        encoded = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        for first in range(0, len(order), BATCH_SIZE):
            chosen = order[first : first + BATCH_SIZE]
            lengths = torch.tensor([len(encoded[i]) for i in chosen])
            tokens = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
            for row, i in zip(tokens, chosen, strict=True):
                row[: len(encoded[i])] = torch.tensor(encoded[i])
            with torch.inference_mode():
                rows[chosen] = self._forward(tokens, lengths).numpy()
        return rows

    def unknown_words(self, sentence: str) -> list[str]:  # noqa: ARG002 - all are known
        return []

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": "transformer", "directory": str(self.directory)}

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def _forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (B, T) of these lengths (B,) -> unit rows (B, Y)."""
        real = torch.arange(tokens.shape[1]) < lengths[:, None]  # (B, T)
        hidden = (
            self.weights["embeddings.word_embeddings.weight"][tokens]
            + self.weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        for number in range(self.layers):
            layer = f"encoder.layer.{number}"
            query, key, value = (
                self._linear(hidden, f"{layer}.attention.self.{name}")
                .unflatten(-1, (self.heads, -1))
                .transpose(1, 2)  # (B, A, T, Y / A)
                for name in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(query, key, value, real[:, None, None])
            mixed = mixed.transpose(1, 2).flatten(2)
            mixed = self._linear(mixed, f"{layer}.attention.output.dense")
            hidden = self._norm(hidden + mixed, f"{layer}.attention.output.LayerNorm")
            inner = F.gelu(self._linear(hidden, f"{layer}.intermediate.dense"))
            outer = self._linear(inner, f"{layer}.output.dense")
            hidden = self._norm(hidden + outer, f"{layer}.output.LayerNorm")
        pooled = (hidden * real[..., None]).sum(1) / lengths[:, None]
        return F.normalize(pooled, dim=-1)

    def _linear(self, rows: Tensor, name: str) -> Tensor:
        return F.linear(rows, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, rows: Tensor, name: str) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(rows, (rows.shape[-1],), weight, bias, self.epsilon)


def read_transformer(directory: Path) -> TransformerEncoder:
    """The sentence encoder in a directory; needs the extra `text` (tokenizers).

    Raises InputError for a directory without config.json, model.safetensors and tokenizer.json, and
    for a network that is not a BERT encoder.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(
            "reading a sentence encoder failed: tokenizers is missing; "
            "pip install 'captioner[text]'"
        ) from error
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (directory / name).is_file():
            raise InputError(f"{directory} is not a sentence encoder: {name} is missing")
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "bert" or config.get("hidden_act", "gelu") != "gelu":
            kind = config.get("model_type")
            raise InputError(
                f"{directory} cannot be used: its network is {kind!r}; choose a BERT encoder, for "
                "example all-MiniLM-L6-v2"
            )
        weights = {
            name.removeprefix("bert."): value.float()
            for name, value in load_file(directory / "model.safetensors").items()
            if value.is_floating_point()
        }
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.no_padding()
        return TransformerEncoder(
            directory,
            weights,
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["layer_norm_eps"],
            tokenizer,
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, AttributeError, SafetensorError) as error:
        raise InputError(f"{directory} cannot be read as a sentence encoder: {error}") from error
