"""Sentence vectors from a BERT encoder in a local directory.

The directory is in the format of sentence-transformers models such as all-MiniLM-L6-v2; it contains
`config.json`, `model.safetensors` and `tokenizer.json`.

Shapes: N sentences, B sentences per batch, T tokens, Y dimensions, A attention heads.
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
from ..git_lfs import refuse_pointer_file
from .tokenizer import split_words

BATCH_SIZE = 64
MAX_TOKENS = 128  # longer sentences are truncated
UNKNOWN = "[UNK]"
ADVICE = "choose a directory written by sentence-transformers"
MODULES = ("Transformer", "Pooling", "Normalize")  # of sentence-transformers


@dataclass(frozen=True, eq=False)
class TransformerEncoder:
    """Averages the last hidden states of a BERT encoder and scales the mean to unit length.

    This is the encoder of Devlin et al. 2019 with the pooling of Reimers and Gurevych 2019.
    Use `read_transformer` to load one. weights: float32 tensors by their names in BERT's
    checkpoints. epsilon: epsilon of layer normalisation. tokenizer: a `tokenizers.Tokenizer` that
    truncates and does not pad.
    """

    weights: dict[str, Tensor]
    layers: int
    heads: int
    epsilon: float
    tokenizer: Any

    @property
    def dimensions(self) -> int:
        """The number of dimensions Y of the vectors."""
        return self.weights["embeddings.word_embeddings.weight"].shape[1]

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Return unit rows (N, Y), float32; the row of a sentence without tokens is zero."""
        rows = np.zeros((len(sentences), self.dimensions), dtype=np.float32)
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(sentences))]
        # Sentences of similar length are encoded together, so that few tokens are padding.
        order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: len(ids[i]))
        for first in range(0, len(order), BATCH_SIZE):
            chosen = order[first : first + BATCH_SIZE]
            lengths = torch.tensor([len(ids[i]) for i in chosen])
            tokens = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
            for row, i in zip(tokens, chosen, strict=True):
                row[: len(ids[i])] = torch.tensor(ids[i])
            with torch.inference_mode():
                rows[chosen] = self._forward(tokens, lengths).numpy()
        return rows

    def unknown_words(self, sentence: str) -> list[str]:
        """Return the words whose encoding contains the unknown token, in order."""
        unknown = self.tokenizer.token_to_id(UNKNOWN)
        words = split_words(sentence)
        encodings = self.tokenizer.encode_batch(words)
        return [
            word for word, encoding in zip(words, encodings, strict=True) if unknown in encoding.ids
        ]

    def _forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Encode tokens (B, T), of which `lengths` (B,) are not padding, as unit rows (B, Y)."""
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
                .view(*tokens.shape, self.heads, -1)
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
    """Read the sentence encoder in a directory; nothing is downloaded.

    Raises InputError if the extra `text` is not installed, a file is missing or damaged, or the
    model is not a BERT encoder with GELU, absolute positions, mean pooling and no other modules.
    """
    check_transformer(directory)
    try:
        return _read(directory)
    except KeyError as error:
        raise InputError(
            f"{directory} is not a sentence encoder: {error} is missing; {ADVICE}"
        ) from error
    except Exception as error:  # tokenizers raises Exception itself for a damaged file
        raise InputError(f"{directory} is not a sentence encoder: {error}; {ADVICE}") from error


def check_transformer(directory: Path) -> None:
    """Raise the errors of `read_transformer` that can be detected without reading the weights."""
    try:
        import tokenizers  # noqa: F401 - only to check that it is installed
    except ImportError as error:
        raise InputError(
            f"reading a sentence encoder needs {error.name}; run pip install 'captioner[text]'"
        ) from error
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        refuse_pointer_file(directory / name)
        if not (directory / name).is_file():
            raise InputError(f"{directory} is not a sentence encoder: {name} is missing; {ADVICE}")
    try:
        _check_supported(directory)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(
            f"{directory} is not a sentence encoder: {error} is missing; {ADVICE}"
        ) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{directory} is not a sentence encoder: {error}; {ADVICE}") from error


def _check_supported(directory: Path) -> None:
    """Raise InputError for a model that `TransformerEncoder` does not support."""
    if (directory / "modules.json").is_file():
        _check_modules(directory)
    config = _read_json(directory / "config.json")
    found = {
        "model_type": config.get("model_type"),
        "hidden_act": config.get("hidden_act", "gelu"),
        "position_embedding_type": config.get("position_embedding_type", "absolute"),
    }
    if (directory / "1_Pooling" / "config.json").is_file():
        pooling = _read_json(directory / "1_Pooling" / "config.json")
        modes = [name for name, value in pooling.items() if "pooling_mode_" in name and value]
        found["pooling_mode"] = pooling.get("pooling_mode", "+".join(modes))
    supported = {
        "model_type": ("bert",),
        "hidden_act": ("gelu",),
        "position_embedding_type": ("absolute",),
        "pooling_mode": ("mean", "pooling_mode_mean_tokens"),
    }
    for name, value in found.items():
        if value not in supported[name]:
            raise InputError(
                f"{directory} is not supported: {name} is {value!r}, not {supported[name][0]!r}; "
                "choose a BERT encoder with mean pooling, such as all-MiniLM-L6-v2"
            )


def _check_modules(directory: Path) -> None:
    """Raise InputError if the model contains a module other than those in MODULES."""
    for module in _parse_json(directory / "modules.json"):
        if "type" not in module:
            raise ValueError("a module in modules.json has no type")
        kind = module["type"].rpartition(".")[2]
        if kind not in MODULES:
            raise InputError(
                f"{directory} is not supported: modules.json contains the module {kind!r}; choose "
                f"a model that contains only {', '.join(MODULES)}, such as all-MiniLM-L6-v2"
            )


def _read(directory: Path) -> TransformerEncoder:
    from safetensors.torch import load_file

    config = _read_json(directory / "config.json")
    weights = {
        name.removeprefix("bert."): tensor.float()
        for name, tensor in load_file(directory / "model.safetensors").items()
        if tensor.is_floating_point()
    }
    return build_transformer(
        weights,
        config["num_hidden_layers"],
        config["num_attention_heads"],
        config["layer_norm_eps"],
        (directory / "tokenizer.json").read_text(encoding="utf-8"),
    )


def build_transformer(
    weights: dict[str, Tensor], layers: int, heads: int, epsilon: float, tokenizer: str
) -> TransformerEncoder:
    """Build an encoder from its weights, its sizes and the JSON of its tokenizer.

    The arguments are those of `TransformerEncoder`. Raises ImportError if the extra `text` is not
    installed, KeyError for a missing weight, and various exceptions for inconsistent arguments.
    """
    from tokenizers import Tokenizer

    if not all(weight.isfinite().all() for weight in weights.values()):
        raise ValueError("the weights contain NaN or infinite values")
    parsed = Tokenizer.from_str(tokenizer)
    positions = len(weights["embeddings.position_embeddings.weight"])
    parsed.enable_truncation(min(MAX_TOKENS, positions))
    parsed.no_padding()
    largest = max(parsed.get_vocab().values(), default=0)
    embeddings = len(weights["embeddings.word_embeddings.weight"])
    if largest >= embeddings:
        raise ValueError(
            f"the tokenizer contains the token id {largest}, but there are only {embeddings} "
            "embeddings"
        )
    # Products of tensors that begin at other bytes, as in a mapped file, are rounded differently.
    copies = {name: weight.clone() for name, weight in weights.items()}
    encoder = TransformerEncoder(copies, layers, heads, epsilon, parsed)
    # Encoding one sentence reveals missing weights and mismatched sizes.
    if not np.isfinite(encoder.encode(["a"])).all():
        raise ValueError("the encoder returns a vector that is NaN or infinite")
    return encoder


def _read_json(path: Path) -> dict[str, Any]:
    content = _parse_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} does not contain a JSON object")
    return content


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON in UTF-8: {error}") from error
