"""Texts in the form that linking models read, and the reader that prepares them.

Shapes: N texts, T words, Y dimensions of sentence vectors.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import InputError
from ...text.given_rows import GivenRows
from ...text.sentence_vectors import SentenceEncoder, flatten_parts
from ...text.tokenizer import plain_words
from ...text.vocabulary import PAD, Vocabulary
from .text_model import ADVICE, known_words, load_sentence_encoder, save_sentence_encoder

READER, VOCABULARY = "reader.json", "vocabulary.json"
MAX_WORDS = 50


@dataclass(frozen=True)
class Texts:
    """N texts, prepared for a model as tokens, as sentence vectors, or as both.

    tokens (N, T): tokens of the words, followed by padding (0). vectors (N, Y): sentence vectors.
    At least one of them is not None.
    """

    tokens: Tensor | None = None
    vectors: Tensor | None = None

    def __len__(self) -> int:
        first = self.tokens if self.tokens is not None else self.vectors
        assert first is not None
        return len(first)

    def to(self, device: torch.device) -> "Texts":
        """Return the texts on a device; copies from pinned memory do not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Texts":
        """Return the texts with `change` applied to their tensors."""
        return Texts(
            None if self.tokens is None else change(self.tokens),
            None if self.vectors is None else change(self.vectors),
        )

    def take(self, rows: Tensor) -> "Texts":
        """Return the texts at `rows`, without columns of tokens that contain only padding."""
        tokens = None
        if self.tokens is not None:
            tokens = self.tokens[rows]
            longest = int((tokens != PAD).sum(1).max()) if len(rows) else 0
            tokens = tokens[:, : max(1, longest)]
        return Texts(tokens, None if self.vectors is None else self.vectors[rows])


def concatenate(blocks: Sequence[Texts]) -> Texts:
    """Concatenate at least one block of texts; tokens are padded to the longest text."""
    tokens = vectors = None
    if blocks[0].tokens is not None:
        parts = [block.tokens for block in blocks if block.tokens is not None]
        width = max(part.shape[1] for part in parts)
        tokens = torch.cat([torch.nn.functional.pad(p, (0, width - p.shape[1])) for p in parts])
    if blocks[0].vectors is not None:
        vectors = torch.cat([block.vectors for block in blocks if block.vectors is not None])
    return Texts(tokens, vectors)


@dataclass(frozen=True)
class TextReader:
    """Prepares texts for a model as tokens, as sentence vectors, or as both.

    vocabulary: vocabulary of the tokens; words outside it are ignored. sentences: encoder of the
    sentence vectors. At least one of them is not None. max_words: maximum number of tokens per
    text.
    """

    vocabulary: Vocabulary | None = None
    sentences: SentenceEncoder | None = None
    max_words: int = MAX_WORDS

    @property
    def vector_size(self) -> int:
        """The number of dimensions Y of the sentence vectors; 0 if there are none."""
        return self.sentences.dimensions if self.sentences else 0

    @property
    def words(self) -> list[str]:
        """The known words, frequent ones first; subwords are not included."""
        known = list(self.vocabulary.words) if self.vocabulary else []
        known += known_words(self.sentences) if self.sentences else []
        return list(dict.fromkeys(known))

    @property
    def can_read(self) -> bool:
        """Whether new texts can be encoded; False if the user computed the captions' vectors."""
        parts = flatten_parts(self.sentences) if self.sentences else ()
        return not any(isinstance(part, GivenRows) for part in parts)

    def read(self, texts: Sequence[str]) -> Texts:
        """Prepare texts; a text without known words becomes padding and a vector of zeros."""
        vectors = torch.from_numpy(self.sentences.encode(texts)) if self.sentences else None
        return Texts(self.read_tokens(texts), vectors)

    def read_tokens(self, texts: Sequence[str]) -> Tensor | None:
        """Return the tokens (N, T) of the known words, with at least one column.

        Returns None if there is no vocabulary.
        """
        if self.vocabulary is None:
            return None
        known = [[w for w in plain_words(text) if w in self.vocabulary] for text in texts]
        rows = [self.vocabulary.encode(words[: self.max_words]) for words in known]
        tokens = torch.full((len(rows), max(1, *map(len, rows), 0)), PAD)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = torch.tensor(ids, dtype=torch.long)
        return tokens

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that do not contribute to its embedding, in order."""
        unknown = (
            plain_words(text) if self.sentences is None else self.sentences.unknown_words(text)
        )
        if self.vocabulary is None:
            return unknown
        return [word for word in unknown if word not in self.vocabulary]

    def knows(self, text: str) -> bool:
        """Return whether any word of a text contributes to its embedding."""
        return len(self.unknown_words(text)) < len(plain_words(text))

    def save(self, directory: Path) -> None:
        """Write the vocabulary, the sentence encoder and READER to a checkpoint's directory."""
        content = {
            "words": self.vocabulary is not None,
            "vectors": self.sentences is not None,
            "max_words": self.max_words,
        }
        (directory / READER).write_text(json.dumps(content) + "\n", encoding="utf-8")
        if self.vocabulary is not None:
            self.vocabulary.save(directory / VOCABULARY)
        if self.sentences is not None:
            save_sentence_encoder(self.sentences, directory)


def load_reader(directory: Path) -> TextReader:
    """Load a reader that `TextReader.save` wrote.

    Raises InputError if a file is missing or damaged, and in the cases of `load_sentence_encoder`.
    """
    try:
        content = json.loads((directory / READER).read_text(encoding="utf-8"))
        words, vectors, max_words = (content[name] for name in ("words", "vectors", "max_words"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{directory / READER} cannot be read: {reason}; {ADVICE}") from error
    if not (words or vectors) or not isinstance(max_words, int) or max_words < 1:
        raise InputError(
            f"{directory / READER} does not describe a text reader: {content}; {ADVICE}"
        )
    return TextReader(
        Vocabulary.load(directory / VOCABULARY) if words else None,
        load_sentence_encoder(directory) if vectors else None,
        max_words,
    )
