"""Splitting sentences into words, and joining words into sentences.

The default follows COCO evaluation. In scripts without spaces between words, such as Chinese,
Japanese and Thai, it returns whole sentences as words; the other tokenizers handle these scripts.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from operator import attrgetter
from string import ascii_lowercase
from typing import NoReturn, TypeAlias

from ..errors import InputError

# Replacements of typographic characters: apostrophes, hyphens, fractions, and punctuation that is
# dropped.
_SIGNS = {
    **dict.fromkeys("‘’‛´ʼ", "'"),
    **dict.fromkeys("‐‑", "-"),
    **dict.fromkeys("“”„‟«»‹›‚…–—―", " "),
    **dict(zip("½¼¾⅓⅔", (" 1/2 ", " 1/4 ", " 3/4 ", " 1/3 ", " 2/3 "), strict=True)),
    **{fraction: f" {fraction} " for fraction in "⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚"},
    "\xad": "",
}
# Spellings that are replaced by other words; the bracket names are from the Penn Treebank.
_RESPELLED = {
    "(": ("-lrb-",),
    ")": ("-rrb-",),
    "[": ("-lsb-",),
    "]": ("-rsb-",),
    "{": ("-lcb-",),
    "}": ("-rcb-",),
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}
_BRACKETS = {words[0]: sign for sign, words in _RESPELLED.items() if len(words) == 1}
_JOIN_BEFORE = {*")]}", "n't", "'s", "'m", "'re", "'ll", "'d", "'ve", "not", "me", "na", "ta"}
_JOIN_AFTER = {*"([{"}

ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|etc|vs|cf|inc|co|corp|ltd|bros|dept|univ|assn|est|ave|blvd|rd|ft|mt"
    "|gen|sen|rep|gov|rev|hon|lt|col|sgt|capt|maj|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
    "|mon|tue|tues|wed|thu|thurs|fri"
)
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻₀₁₂₃₄₅₆₇₈₉"  # a word of their own, as in m² and CO₂
_LETTER = rf"(?:(?![{_RAISED}])[\w{_MARKS}])"
_INNER = rf"(?:(?!n't(?!{_LETTER})){_LETTER})"  # a letter that does not begin a final "n't"
_PLAIN = rf"(?:(?!_){_INNER})"
_WORD = re.compile(
    rf"""
      -[lr][rsc]b- | <unk>
    | 'n'(?!t) | (?:n't | '(?:s|m|re|ll|d|ve|n|em|til|cause|\d0s))(?!{_LETTER})
    | [a-z0-9]+[.,][a-z0-9.,]{{0,60}}+(?:-[a-z0-9]+)+(?!{_LETTER})    # red,t-shirt u.s.-made
    | no\.(?=\ *\d) | (?:{ABBREVIATIONS})\.(?!{_LETTER})             # no. 5, mr.
    | (?:[a-z]\.)+(?!{_LETTER})                                       # u.s., a.
    | \d+(?:[.,:]\d+)+(?:-{_INNER}+)*                                 # 1,000 7:15 2.5-inch
    | (?:[cdlos]|ma|qu)'{_INNER}{{2,}}                               # o'clock, ma'am
    | (?:{_PLAIN}+[-_])+{_PLAIN}+(?=\.{_LETTER})                      # img_001 in img_001.jpg
    | {_INNER}+(?:[-/.]{_INNER}+)*                                    # dog, t-shirt, and/or, mp3
    | [{_RAISED}]+                                                    # ², ⁻¹
    | [\#@](?=[^\W\d]){_INNER}+                                       # #hashtag
    | [!?]{{2,}} | [^\s.,:;'"`!?-]                                    # a symbol that is not dropped
    """,
    re.VERBOSE,
)

_HASHTAG = re.compile(r"#(?=[^\W\d])")
_SIMPLE = re.compile(r"[A-Za-z ,]*")
_WITH_STOP = frozenset({*ABBREVIATIONS.split("|"), *ascii_lowercase})  # "etc." and "u." are words


def split_words(sentence: str) -> list[str]:
    """Return the lower-cased words of a sentence, tokenised as for the COCO caption scores.

    Follows the Penn Treebank tokeniser ("don't" becomes "do", "n't", and "(" becomes "-lrb-"), then
    drops the punctuation that coco-caption drops. Line breaks, control characters and
    characters outside the Basic Multilingual Plane (emoji) count as spaces.
    """
    words = _split_simple(sentence)
    return _split_any(sentence) if words is None else words


def _split_any(sentence: str) -> list[str]:
    """Split any sentence as `split_words` does, by the regular expression of all rules."""
    plain = re.sub(r"[^ -~]", _replacement, unicodedata.normalize("NFC", sentence)).lower()
    return [word for piece in _WORD.findall(plain) for word in _RESPELLED.get(piece, (piece,))]


def _split_simple(sentence: str) -> list[str] | None:
    """Return what `split_words` returns for most captions, in a fifth of the time, or None.

    In sentences of letters, spaces, commas and a final full stop, words are what stands between
    spaces and commas. The result is None for all other sentences, and for those with a word that
    is respelled or that a full stop belongs to.
    """
    text = sentence.removesuffix(".")
    if not _SIMPLE.fullmatch(text):
        return None
    words = text.lower().replace(",", " ").split()
    if text != sentence and text[-1:].isalpha() and words[-1] in _WITH_STOP:
        return None
    return words if _RESPELLED.keys().isdisjoint(words) else None


def plain_words(sentence: str) -> list[str]:
    """Split a sentence as `split_words` does, but without the sign of hashtags: "#dog" is "dog"."""
    return split_words(_HASHTAG.sub(" ", sentence))


def _replacement(match: re.Match[str]) -> str:
    character = match[0]
    kept = character.isprintable() and character <= "\uffff"
    return _SIGNS.get(character, character if kept else " ")


def join_words(words: Sequence[str]) -> str:
    """Join words into a readable sentence that `split_words` splits into the same words.

    Contraction endings and the contents of brackets are joined without a space if that does not
    change the words.
    """
    pieces: list[str] = []
    for word in words:
        written = _BRACKETS.get(word, word)
        last = pieces[-1] if pieces else ""
        may_join = last and (written in _JOIN_BEFORE or last[-1] in _JOIN_AFTER)
        if may_join and split_words(last + written) == [*split_words(last), word]:
            pieces[-1] = last + written
        else:
            pieces.append(written)
    return " ".join(pieces)


# ---- the choice of a tokenizer ------------------------------------------------------------------

TokenizerChoice: TypeAlias = str | Callable[[str], Sequence[str]]

SAMPLE = 1000  # number of captions that are split to find out whether they have spaces
# Scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana, bopomofo, Han.
_SPACELESS = (
    "\u0e00-\u0e7f\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)
_RARE = re.compile("([\U00020000-\U0003ffff])")  # Han outside the Basic Multilingual Plane
_PIECE = re.compile(rf"[{_SPACELESS}]|[^{_SPACELESS}]+")
_GAP = re.compile(rf"(?<=[{_SPACELESS}]) (?=[{_SPACELESS}])")


@dataclass(frozen=True)
class Tokenizer:
    """A pair of functions: one splits a sentence into words, the other joins words into a sentence.

    name: "words", "characters", or "module:function" for a Python function supplied by the user.
    Checkpoints store this name, but not the function.
    """

    name: str
    split: Callable[[str], list[str]]
    join: Callable[[Sequence[str]], str]


def split_characters(sentence: str) -> list[str]:
    """Split text in scripts without spaces into characters, and other text into words.

    Combining marks stay with their character; punctuation is dropped. Other scripts and numbers are
    split by `split_words`, as in sacrebleu's tokenizer `zh`.
    """
    plain = "".join(" " if _is_wide_punctuation(c) else c for c in sentence)
    pieces: list[str] = []
    for part in _RARE.split(plain):  # `split_words` drops rare characters
        for word in [part] if _RARE.fullmatch(part) else split_words(part):
            start = len(pieces)
            for piece in _PIECE.findall(word):
                if len(pieces) > start and unicodedata.category(piece[0])[0] == "M":
                    pieces[-1] += piece
                else:
                    pieces.append(piece)
    return pieces


def _is_wide_punctuation(character: str) -> bool:
    return character > "\u2fff" and unicodedata.category(character)[0] == "P"


def join_characters(words: Sequence[str]) -> str:
    """Join words as `join_words` does, then remove spaces in scripts written without them."""
    return _GAP.sub("", join_words(words))


WORDS = Tokenizer("words", split_words, join_words)
CHARACTERS = Tokenizer("characters", split_characters, join_characters)


def get_tokenizer(choice: TokenizerChoice) -> Tokenizer:
    """Return the tokenizer "words" or "characters", or one that splits with a Python function.

    choice: "words", "characters", a function that returns a list of words, or the name of such a
    function as "module:function". The module is imported, so the name must come from the user,
    never from a file. Words that contain white space are split there. Raises InputError for an
    unknown name and for a function that cannot be imported; the tokenizer raises InputError if its
    function fails.
    """
    if isinstance(choice, str) and choice.lower() in ("words", "characters"):
        return WORDS if choice.lower() == "words" else CHARACTERS
    if isinstance(choice, str):
        function = _import_function(choice)
        return Tokenizer(choice, _checked(function, choice), join_characters)
    function = choice
    module = getattr(choice, "__module__", None) or type(choice).__module__
    name = f"{module}:{getattr(choice, '__qualname__', type(choice).__qualname__)}"
    return Tokenizer(name, _checked(function, name), join_characters)


def stored_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer that a checkpoint names, without importing any function.

    Checkpoints may be untrusted. If the name is that of a Python function, the returned tokenizer
    raises InputError when it is used to split a sentence.
    """
    if name in ("words", "characters"):
        return get_tokenizer(name)

    def refuse(sentence: str) -> NoReturn:  # noqa: ARG001
        raise InputError(
            f"the model's tokenizer is the Python function {name}, which checkpoints do not "
            "contain; pass it as --tokenizer module:function"
        )

    return Tokenizer(name, refuse, join_characters)


def are_mostly_one_word(sentences: Iterable[str], tokenizer: Tokenizer) -> bool:
    """Return whether single words outnumber longer sentences among the first SAMPLE sentences."""
    counts = [len(tokenizer.split(sentence)) for sentence in islice(sentences, SAMPLE)]
    return counts.count(1) > sum(count > 1 for count in counts)


def one_word_note(sentences: Iterable[str], tokenizer: Tokenizer) -> str:
    """Return a note if the tokenizer is `WORDS` and splits most sentences into a single word.

    Returns an empty string otherwise; other tokenizers are assumed to fit the script.
    """
    if tokenizer.name != "words" or not are_mostly_one_word(sentences, tokenizer):
        return ""
    return (
        "most captions are a single word; if their script has no spaces between words, pass "
        "--tokenizer characters, or --tokenizer module:function with a function that splits them "
        "into words"
    )


def _import_function(name: str) -> Callable[[str], Sequence[str]]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise InputError(
            f"unknown tokenizer {name!r}; choose words, characters, or module:function to "
            "use a Python function"
        )
    try:
        found = attrgetter(function)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"the tokenizer {name!r} cannot be imported: {error}; check the name, and add "
            "the directory of its module to PYTHONPATH"
        ) from error
    except Exception as error:  # the user's module may raise anything
        raise InputError(
            f"the tokenizer {name!r} cannot be imported: its module raised {_describe(error)}; "
            "correct the module"
        ) from error
    if not callable(found):
        raise InputError(f"the tokenizer {name!r} is not a function; choose a function")
    return found  # type: ignore[no-any-return]


def _checked(function: Callable[[str], Sequence[str]], name: str) -> Callable[[str], list[str]]:
    """Wrap a function that splits sentences; if it fails, the wrapper raises InputError."""

    def split(sentence: str) -> list[str]:
        try:
            words = function(sentence)
            is_list = isinstance(words, Iterable) and not isinstance(words, str | bytes)
            words = list(words) if is_list else words
        except InputError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise InputError(
                f"the tokenizer {name!r} failed for {sentence!r:.80}: it raised "
                f"{_describe(error)}; correct the function"
            ) from error
        if not is_list or not all(isinstance(word, str) for word in words):
            raise InputError(
                f"the tokenizer {name!r} must return a list of words, got {words!r:.80}; correct "
                "the function"
            )
        return [part for word in words for part in word.split()]

    return split


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
