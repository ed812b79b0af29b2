"""Articles: texts of several sentences as tokens, and the reader that prepares them.

Shapes: N texts, K sentences of all texts, T words of the longest sentence.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ...text.sentences import split_sentences
from ...text.tokenizer import plain_words
from ...text.vocabulary import PAD, UNKNOWN, Vocabulary
from .options import MAX_SENTENCES, MAX_WORDS


@dataclass(frozen=True)
class Articles:
    """N texts as K sentences, each of at least one word.

    tokens (K, T): a row for each sentence, its words followed by padding (0); the sentences of a
    text are consecutive rows. counts (N,): number of sentences of each text, at least 1.
    """

    tokens: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def text_of_sentence(self) -> Tensor:
        """The index (K,) of each sentence's text."""
        texts = torch.arange(len(self.counts), device=self.counts.device)
        return texts.repeat_interleave(self.counts)

    @cached_property
    def position(self) -> Tensor:
        """The position (K,) of each sentence in its text."""
        firsts = self.counts.cumsum(0) - self.counts
        return torch.arange(len(self.tokens), device=firsts.device) - firsts[self.text_of_sentence]

    def map(self, change: Callable[[Tensor], Tensor]) -> "Articles":
        """Return the texts with `change` applied to both tensors."""
        return Articles(change(self.tokens), change(self.counts))


@dataclass(frozen=True)
class ArticleReader:
    """Splits texts into sentences of tokens; words outside the vocabulary become UNKNOWN.

    Texts are truncated to max_sentences sentences, and sentences to max_words words.
    """

    vocabulary: Vocabulary
    max_sentences: int = MAX_SENTENCES
    max_words: int = MAX_WORDS

    def read(self, text: str) -> list[list[int]]:
        """Return the tokens of each sentence that contains a word.

        A text without words becomes a sentence of one unknown word.
        """
        sentences = [plain_words(s) for s in split_sentences(text)[: self.max_sentences]]
        known = [self.vocabulary.encode(words[: self.max_words]) for words in sentences if words]
        return known or [[UNKNOWN]]


class ArticleStore:
    """The texts of a split in memory; equal sentences are stored once.

    Texts share many sentences: a caption of an image occurs in several of the image's texts, and
    can occur in texts of other images.
    """

    def __init__(self, reader: ArticleReader, texts: Iterable[str]) -> None:
        numbers: dict[tuple[int, ...], int] = {}
        self._rows = [
            np.array([numbers.setdefault(tuple(s), len(numbers)) for s in reader.read(text)])
            for text in texts
        ]
        self._lengths = torch.tensor([len(sentence) for sentence in numbers])
        self._tokens = pad_tokens([list(sentence) for sentence in numbers]).int()

    def __len__(self) -> int:
        return len(self._rows)

    def sentences(self, row: int) -> list[int]:
        """Return a number for each sentence of a text; equal sentences have equal numbers."""
        numbers: list[int] = self._rows[row].tolist()
        return numbers

    def take(self, rows: Sequence[int]) -> Articles:
        """Return the texts at `rows`, without columns that contain only padding."""
        chosen = [self._rows[row] for row in rows]
        ids = torch.from_numpy(np.concatenate(chosen))
        longest = int(self._lengths[ids].max())
        tokens = self._tokens[ids, :longest].long()
        return Articles(tokens, torch.tensor([len(each) for each in chosen]))

    def word_counts(self, rows: Iterable[int], size: int) -> Tensor:
        """Return how often each of `size` tokens occurs in the texts at `rows`, (size,), float64.

        Padding is not counted.
        """
        ids = np.concatenate([self._rows[row] for row in rows])
        uses = torch.from_numpy(np.bincount(ids, minlength=len(self._tokens)))
        flat = self._tokens.long()
        weights = uses[:, None].expand_as(flat).reshape(-1).double()
        counts = torch.bincount(flat.reshape(-1), weights, size)
        counts[PAD] = 0
        return counts


def pad_tokens(sentences: Sequence[Sequence[int]]) -> Tensor:
    """Return the tokens (K, T) of K sentences, padded with PAD to the longest; K is at least 1."""
    tokens = torch.full((len(sentences), max(map(len, sentences))), PAD)
    for row, sentence in zip(tokens, sentences, strict=True):
        row[: len(sentence)] = torch.tensor(sentence)
    return tokens
