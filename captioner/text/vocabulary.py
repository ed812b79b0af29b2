"""Words to token numbers and back, in memory and in a file; nothing here splits sentences."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import InputError

PAD, START, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<pad>", "<start>", "<end>", "<unk>")
FORMAT = 1


class Vocabulary:
    """The words a model knows; a word's token is its place, after the four special tokens.

    `words` (and the argument of that name) leaves the specials out, `len` counts them: it is the
    number of tokens, V. Raises `InputError` for a word that is empty, has a space in it, comes
    twice, or is written like a special.
    """

    PAD, START, END, UNKNOWN = PAD, START, END, UNKNOWN

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._all = (*SPECIALS, *self.words)
        self._tokens: dict[str, int] = {}
        for token, word in enumerate(self.words, start=len(SPECIALS)):
            if not isinstance(word, str) or word.split() != [word]:
                raise InputError(f"a vocabulary holds words without spaces, got {word!r}")
            if word in SPECIALS or word in self._tokens:
                which = "is reserved" if word in SPECIALS else "comes twice"
                raise InputError(f"the word {word!r} {which}; a vocabulary holds plain words once")
            self._tokens[word] = token

    @classmethod
    def build(cls, captions: Iterable[Sequence[str]], min_count: int = 1) -> "Vocabulary":
        """The words that occur at least `min_count` times in captions given as lists of words.

        The most frequent word comes first, words of like frequency in alphabetical order.
        """
        if min_count < 1:
            raise InputError(f"min_count must be at least 1, got {min_count}")
        counts: Counter[str] = Counter()
        for caption in captions:
            if isinstance(caption, str):
                raise InputError(
                    f"captions must be lists of words, got {caption!r}; split it first"
                )
            counts.update(caption)
        del counts[SPECIALS[UNKNOWN]]  # captions may come with their rare words struck out
        kept = [word for word, count in counts.items() if count >= min_count]
        if not kept:
            raise InputError(f"no word occurs {min_count} times in the captions; lower min_count")
        return cls(sorted(kept, key=lambda word: (-counts[word], word)))

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self._tokens

    def encode(self, words: Iterable[str]) -> list[int]:
        """One token for each word, `UNKNOWN` where the word is not known; adds no start or end."""
        return [self._tokens.get(word, UNKNOWN) for word in words]

    def decode(self, tokens: Iterable[int]) -> list[str]:
        """The words of the tokens up to the first `END`; `PAD` and `START` are left out."""
        words = []
        for token in map(int, tokens):
            if not 0 <= token < len(self):
                raise InputError(f"token {token} is not one of the {len(self)} of the vocabulary")
            if token == END:
                break
            if token not in (PAD, START):
                words.append(self._all[token])
        return words

    def save(self, path: str | Path) -> None:
        """Writes JSON, one word to a line."""
        content = {"format": FORMAT, "words": self.words}
        text = json.dumps(content, ensure_ascii=False, indent=0)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Reads what `save` wrote; raises `InputError`, naming the file, for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: not a readable vocabulary ({error})") from error
        if not isinstance(content, dict) or not isinstance(content.get("words"), list):
            raise InputError(f"{path}: not a vocabulary, there is no list of words in it")
        if content.get("format") != FORMAT:
            found = content.get("format")
            raise InputError(f"{path}: has format {found!r}, this version reads format {FORMAT}")
        try:
            return cls(content["words"])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
