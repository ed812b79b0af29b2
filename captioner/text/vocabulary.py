"""The vocabulary, which maps words to tokens and back; saved as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..git_lfs import refuse_pointer_file
from .tokenizer import (
    CHARACTERS,
    WORDS,
    Tokenizer,
    TokenizerChoice,
    get_tokenizer,
    stored_tokenizer,
)

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
FORMAT = 2
READABLE = (1, 2)  # 2 adds `tokenizer`; 1 is still written without one, for older versions


class Vocabulary:
    """The words of a model, numbered in order after the four special tokens.

    `words` does not include the special tokens, but `len` does: it is the number of tokens, V.
    `tokenizer` is the tokenizer that splits sentences into these words.
    Raises InputError for a word that is empty, contains white space, is repeated, or is spelled
    like a special token.
    """

    PAD, START, END, UNKNOWN = PAD, START, END, UNKNOWN

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer = WORDS) -> None:
        self.words = tuple(words)
        self.tokenizer = tokenizer
        self._all = (*SPECIALS, *self.words)
        self._tokens: dict[str, int] = {}
        for token, word in enumerate(self.words, start=len(SPECIALS)):
            if not isinstance(word, str) or word.split() != [word]:
                raise InputError(
                    f"vocabulary words must be nonempty strings without white space, got {word!r}"
                )
            if word in SPECIALS or word in self._tokens:
                defect = "reserved; remove it" if word in SPECIALS else "repeated; list it once"
                raise InputError(f"the vocabulary word {word!r} is {defect}")
            self._tokens[word] = token

    @classmethod
    def build(
        cls,
        captions: Iterable[Sequence[str]],
        min_count: int = 1,
        tokenizer: Tokenizer = WORDS,
    ) -> "Vocabulary":
        """Build a vocabulary of the words that occur at least `min_count` times.

        captions: lists of words. The most frequent word comes first; words of equal frequency are
        in alphabetical order. `<unk>` is not counted. Raises InputError if no word remains, if a
        caption is a string, if `min_count` is below 1, and for words that the class refuses.
        """
        if min_count < 1:
            raise InputError(f"min_count must be at least 1, got {min_count}")
        counts: Counter[str] = Counter()
        for caption in captions:
            if isinstance(caption, str):
                raise InputError(
                    f"captions must be lists of words, got {caption!r:.80}; split each into words"
                )
            counts.update(caption)
        del counts[SPECIALS[UNKNOWN]]  # rare words may already have been replaced by it
        kept = [word for word, count in counts.items() if count >= min_count]
        if not any(counts.values()):
            raise InputError("the captions contain no words; add captions with words")
        if not kept:
            raise InputError(f"no word occurs at least {min_count} times; lower min_count")
        return cls(sorted(kept, key=lambda word: (-counts[word], word)), tokenizer)

    def same_as(self, other: "Vocabulary") -> bool:
        """Return whether `other` has the same words and the same tokenizer."""
        return (self.words, self.tokenizer.name) == (other.words, other.tokenizer.name)

    def with_function(self, choice: TokenizerChoice) -> "Vocabulary":
        """Return the vocabulary with its tokenizer's function, which is not stored in files.

        choice: as in `get_tokenizer`. Returns the vocabulary itself if its tokenizer is not a
        Python function. If it is, raises InputError unless `choice` is a Python function too.
        """
        if self.tokenizer in (WORDS, CHARACTERS):
            return self
        given = get_tokenizer(choice)
        if given in (WORDS, CHARACTERS):
            raise InputError(
                f"the model's tokenizer is the Python function {self.tokenizer.name}, not "
                f"{given.name}; pass that function as --tokenizer module:function"
            )
        return Vocabulary(self.words, replace(self.tokenizer, split=given.split))

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._tokens

    def encode(self, words: Iterable[str]) -> list[int]:
        """Return one token per word, or UNKNOWN if the word is not in the vocabulary.

        START and END are not added.
        """
        return [self._tokens.get(word, UNKNOWN) for word in words]

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """Return the words of the tokens before the first END, without PAD and START.

        Raises InputError for a token outside the vocabulary.
        """
        words = []
        for token in map(int, tokens):
            if not 0 <= token < len(self):
                raise InputError(
                    f"token {token} is not in the vocabulary of {len(self)} tokens; use the "
                    "vocabulary of the model that returned it"
                )
            if token == END:
                break
            if token not in (PAD, START):
                words.append(self._all[token])
        return words

    def save(self, path: str | Path) -> None:
        """Write the vocabulary as JSON, one word per line."""
        content: dict[str, object] = {"format": 1, "words": self.words}
        if self.tokenizer is not WORDS:
            content = {"format": FORMAT, "tokenizer": self.tokenizer.name, "words": self.words}
        text = json.dumps(content, ensure_ascii=False, indent=0)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read a file written by `save`; raise InputError, naming the file, for any other file."""
        refuse_pointer_file(Path(path))
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"vocabulary {path} cannot be read: {error}; choose another file"
            ) from error
        if not isinstance(content, dict) or not isinstance(content.get("words"), list):
            raise InputError(
                f"{path} is not a vocabulary: it has no list of words; choose another file"
            )
        if content.get("format") not in READABLE:
            version = content.get("format")
            newer = type(version) is int and version > FORMAT
            raise InputError(
                f"vocabulary {path} cannot be read: it has format {version!r}, but this version of "
                "captioner reads formats 1 and 2; "
                + ("update captioner" if newer else "choose another file")
            )
        name = content.get("tokenizer", WORDS.name)
        if not isinstance(name, str):
            raise InputError(
                f"{path} is not a vocabulary: its tokenizer must be text, got {name!r}; choose "
                "another file"
            )
        try:
            return cls(content["words"], stored_tokenizer(name))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
