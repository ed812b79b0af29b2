"""Saving sentence encoders to a directory, and loading them.

    text.json          format version, and the kind, words and sizes of each part
    text.safetensors   the arrays of all parts, named NUMBER.NAME

An encoder that is not a concatenation has one part.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...compact import expand
from ...errors import InputError
from ...options import from_dict, to_dict
from ...text.documents import ParagraphVectors, TopicModel
from ...text.given_rows import GivenRows
from ...text.sentence_vectors import (
    ConcatenatedEncoder,
    SentenceEncoder,
    WordSum,
    flatten_parts,
)
from ...text.transformer import TransformerEncoder, build_transformer
from ...text.vocabulary import Vocabulary
from ..captioning.options import ModelOptions
from ..captioning.sentence_state import SentenceState, build_sentence_state

FORMAT = 1
ADVICE = "copy or download the checkpoint again"
TEXT, ARRAYS = "text.json", "text.safetensors"
KINDS = ("words", "topics", "paragraphs", "transformer", "captioner", "rows")
SIMILAR = 3  # words to suggest for an unknown word

Arrays = Mapping[str, np.ndarray]


def save_sentence_encoder(encoder: SentenceEncoder, directory: Path) -> None:
    """Write an encoder to TEXT and ARRAYS in an existing directory.

    Raises OSError or SafetensorError if the files cannot be written.
    """
    from safetensors.numpy import save_file

    described = [_describe(part) for part in flatten_parts(encoder)]
    content = {"format": FORMAT, "parts": [about for about, _ in described]}
    # safetensors 0.8.0 writes wrong values of arrays that are not in row order.
    arrays = {
        f"{number}.{name}": np.asarray(array, order="C")
        for number, (_, own) in enumerate(described)
        for name, array in own.items()
    }
    save_file(arrays, directory / ARRAYS)
    (directory / TEXT).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    shutil.copymode(directory / TEXT, directory / ARRAYS)  # safetensors ignores the umask


def load_sentence_encoder(directory: Path) -> SentenceEncoder:
    """Load an encoder that `save_sentence_encoder` wrote; it returns exactly the same vectors.

    Raises an InputError that names the file if a file is missing, damaged or in another format, if
    the two files do not match, or if a part needs an extra that is not installed.
    """
    path = directory / TEXT
    parts = _read_parts(path)
    arrays = _read_arrays(directory / ARRAYS)
    own: list[dict[str, np.ndarray]] = [{} for _ in parts]
    for full, array in arrays.items():
        prefix, _, name = full.partition(".")
        if not prefix.isdecimal() or int(prefix) >= len(parts):
            raise InputError(
                f"{directory / ARRAYS} is damaged: {full} does not belong to any part listed in "
                f"{TEXT}; {ADVICE}"
            )
        own[int(prefix)][name] = array
    encoders: list[SentenceEncoder] = []
    for number, (about, values) in enumerate(zip(parts, own, strict=True)):
        try:
            encoders.append(_restore(about, values))
        except ImportError as error:
            raise InputError(
                f"{path} needs {error.name}; run pip install 'captioner[text]'"
            ) from error
        except KeyError as error:
            raise InputError(
                f"{path} or {ARRAYS} is damaged: part {number} has no {error}; {ADVICE}"
            ) from error
        except Exception as error:  # tokenizers raises Exception itself
            reason = " ".join(str(error).split())  # torch's messages span several lines
            raise InputError(f"{path}: part {number} cannot be used: {reason}; {ADVICE}") from error
    return encoders[0] if len(encoders) == 1 else ConcatenatedEncoder(tuple(encoders))


def known_words(encoder: SentenceEncoder) -> list[str]:
    """Return the known words of an encoder, frequent ones first; subword models have none."""
    return list(dict.fromkeys(w for part in flatten_parts(encoder) for w in _known_words(part)))


def suggest_words(known: Sequence[str], words: Sequence[str]) -> str:
    """List unknown words, each with up to SIMILAR known ones that resemble it.

    A word with hyphens between known words, such as "dog-cat", is also written as a subtraction.
    """
    described = []
    for word in dict.fromkeys(words):
        similar = _similar_words(word, known)
        advice = [f"similar: {', '.join(similar)}"] if similar else []
        if "-" in word and set(known).issuperset(parts := word.split("-")):
            advice.append(f"to subtract, write {' - '.join(parts)}")
        described.append(f"{word!r} ({'; '.join(advice) or 'no similar word'})")
    return ", ".join(described)


def _similar_words(word: str, known: Sequence[str]) -> list[str]:
    """Return up to SIMILAR known words that resemble `word`, the most similar first.

    Equally similar words are in the order of `known`.
    """
    close = get_close_matches(word, known, 4 * SIMILAR)
    likeness = {each: SequenceMatcher(None, each, word).ratio() for each in close}
    return sorted(close, key=lambda each: (-likeness[each], known.index(each)))[:SIMILAR]


def _known_words(part: SentenceEncoder) -> Sequence[str]:
    """Return the vocabulary of a part, frequent words first; empty if it has no whole words."""
    match part:
        case WordSum() | TopicModel() | ParagraphVectors():
            return part.words
        case SentenceState():
            return part.vocabulary.words
    return ()


def _describe(part: SentenceEncoder) -> tuple[dict[str, Any], Arrays]:
    """Return the entry of a part in TEXT, and its arrays."""
    about: dict[str, Any]
    match part:
        case WordSum(words, weights, vectors):
            about = {"kind": "words", "words": words}
            arrays = {"weights": weights} | ({} if vectors is None else {"vectors": vectors})
        case TopicModel(words, weights, topics, prior, mean):
            about = {"kind": "topics", "words": words}
            arrays = {"weights": weights, "topics": topics, "prior": prior, "mean": mean}
        case ParagraphVectors(words, weights, outputs, noise, mean):
            about = {"kind": "paragraphs", "words": words}
            arrays = {"weights": weights, "outputs": outputs, "noise": noise, "mean": mean}
        case TransformerEncoder(tensors, layers, heads, epsilon, tokenizer):
            about = {"kind": "transformer", "layers": layers, "heads": heads, "epsilon": epsilon}
            about["tokenizer"] = tokenizer.to_str()
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        case SentenceState(model, vocabulary):
            about = {"kind": "captioner", "channels": model.encoder.channels}
            about |= {"options": to_dict(model.options), "words": vocabulary.words}
            arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        case GivenRows(rows, fingerprint, source):
            about = {"kind": "rows", "fingerprint": fingerprint, "source": source}
            arrays = {"rows": rows.astype(rows.dtype.newbyteorder("="), copy=False)}
        case _:
            raise TypeError(f"a sentence encoder of type {type(part).__name__} cannot be saved")
    return about, arrays


def _restore(about: dict[str, Any], arrays: Arrays) -> SentenceEncoder:
    """Rebuild a part from its entry in TEXT and its arrays.

    Raises one of various exceptions if they do not match, and ImportError if an extra is missing.
    """
    kind = _field(about, "kind", str)
    if kind != "rows" and (wrong := [n for n, a in arrays.items() if a.dtype != np.float32]):
        raise ValueError(f"{wrong[0]} must be float32, got {arrays[wrong[0]].dtype}")
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    match kind:
        case "words":
            return _restore_words(_field(about, "words", list), arrays)
        case "topics" | "paragraphs":
            return _restore_documents(kind, _field(about, "words", list), arrays)
        case "transformer":
            return build_transformer(
                tensors,
                _field(about, "layers", int),
                _field(about, "heads", int),
                _field(about, "epsilon", float),
                _field(about, "tokenizer", str),
            )
        case "captioner":
            return build_sentence_state(
                from_dict(ModelOptions, _field(about, "options", dict)),
                _field(about, "channels", int),
                Vocabulary(_field(about, "words", list)),
                tensors,
            )
        case "rows":
            rows = arrays["rows"]
            if set(arrays) != {"rows"} or rows.ndim != 2 or not rows.shape[1]:
                raise ValueError(f"expected one array, rows (N, 1 or more), got {_shapes(arrays)}")
            return GivenRows(rows, _field(about, "fingerprint", str), _field(about, "source", str))
    raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")


def _restore_documents(
    kind: str, words: list[Any], arrays: Arrays
) -> TopicModel | ParagraphVectors:
    """Rebuild a topic model or paragraph vectors; raise ValueError or KeyError if invalid."""
    _check_words(words)
    names = ("topics", "prior") if kind == "topics" else ("outputs", "noise")
    size = arrays["mean"].size
    shapes: dict[str, tuple[int, ...]] = {"weights": (len(words),), "mean": (size,)}
    if kind == "topics":
        shapes |= {"topics": (size, len(words)), "prior": (size,)}
    else:
        drawn = arrays["noise"].size // max(1, size)
        shapes |= {"outputs": (len(words), size), "noise": (drawn, size)}
    if shapes != {name: array.shape for name, array in arrays.items()} or not size:
        raise ValueError(f"the arrays of {kind} have the wrong shapes: {_shapes(arrays)}")
    if kind == "topics" and (arrays["topics"].min() < 0 or arrays["prior"].min() <= 0):
        raise ValueError("topics must not be negative, and their prior must be positive")
    values = (arrays["weights"], *(arrays[name] for name in names), arrays["mean"])
    return (TopicModel if kind == "topics" else ParagraphVectors)(tuple(words), *values)


def _check_words(words: list[Any]) -> None:
    if not words or not all(isinstance(word, str) and word.split() == [word] for word in words):
        raise ValueError(
            f"words must be one or more strings without white space, got {words!r:.80}"
        )
    if repeated := len(words) - len(set(words)):
        raise ValueError(f"words must be unique; number of duplicates: {repeated}")


def _restore_words(words: list[Any], arrays: Arrays) -> WordSum:
    _check_words(words)
    weights, vectors = arrays["weights"], arrays.get("vectors")
    if set(arrays) - {"weights", "vectors"} or weights.shape != (len(words),):
        raise ValueError(
            f"expected weights ({len(words)},) and optional vectors, got {_shapes(arrays)}"
        )
    if vectors is not None and (
        vectors.ndim != 2 or len(vectors) != len(words) or not vectors.shape[1]
    ):
        raise ValueError(f"vectors must have shape ({len(words)}, 1 or more), got {vectors.shape}")
    return WordSum(tuple(words), weights, vectors)


def _shapes(arrays: Arrays) -> str:
    """Format the names and shapes of arrays for an error message."""
    return ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items()))


def _field(about: Mapping[str, Any], name: str, kind: type) -> Any:
    """Return a value of TEXT; raise ValueError for a wrong type or a number that is not above 0."""
    value = about[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
    if isinstance(value, int | float) and not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return value


def _read_parts(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}; {ADVICE}") from error
    if not isinstance(content, dict) or "format" not in content:
        raise InputError(f"{path} is not a sentence encoder: it has no format; {ADVICE}")
    if content["format"] != FORMAT:
        raise InputError(
            f"{path} has format {content['format']!r}, but this version of captioner reads format "
            f"{FORMAT}; update captioner"
        )
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts or not all(isinstance(p, dict) for p in parts):
        raise InputError(f"{path} is not a sentence encoder: it has no list of parts; {ADVICE}")
    return parts


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, np.ndarray] = load_file(path)
    except (SafetensorError, OSError, TypeError, KeyError) as error:  # bfloat16 is a KeyError
        raise InputError(f"{path} cannot be read: {error}; {ADVICE}") from error
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    arrays = {name: tensor.numpy() for name, tensor in expand(tensors).items()}
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(
                f"{path} is damaged: {name} must contain only finite floating-point numbers; "
                f"{ADVICE}"
            )
    return arrays
