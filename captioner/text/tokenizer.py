"""Sentences to words and back, as the COCO caption scores count them; no vocabulary."""

import re
import unicodedata
from collections.abc import Sequence

# Typographic signs and what they count as: apostrophes, hyphens, and signs that are dropped.
_SIGNS = {
    **dict.fromkeys("‘’‛´ʼ", "'"),
    **dict.fromkeys("‐‑", "-"),
    **dict.fromkeys("“”„‟«»‹›‚…–—―", " "),
    "\xad": "",
}
# What is written as one piece and counts as other words; the brackets are the treebank's.
_SPELLED = {
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
_BRACKETS = {words[0]: sign for sign, words in _SPELLED.items() if len(words) == 1}
_JOIN_BEFORE = {*")]}", "n't", "'s", "'m", "'re", "'ll", "'d", "'ve", "not", "me", "na", "ta"}
_JOIN_AFTER = {*"([{"}

_ABBREVIATIONS = (
    "mr|mrs|ms|dr|prof|st|jr|sr|etc|vs|cf|inc|co|corp|ltd|bros|dept|univ|assn|est|ave|blvd|rd|ft|mt"
    "|gen|sen|rep|gov|rev|hon|lt|col|sgt|capt|maj|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec"
    "|mon|tue|tues|wed|thu|thurs|fri"
)
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")
_LETTER = rf"[\w{_MARKS}]"
_INNER = rf"(?:(?!n't(?!{_LETTER})){_LETTER})"  # a letter that does not begin a closing "n't"
_WORD = re.compile(
    rf"""
      -[lr][rsc]b- | <unk>
    | 'n'(?!t) | (?:n't | '(?:s|m|re|ll|d|ve|n|em|til|cause|\d0s))(?!{_LETTER})
    | [a-z0-9]+[.,][a-z0-9.,]{{0,60}}+(?:-[a-z0-9]+)+(?!{_LETTER})    # red,t-shirt u.s.-made
    | no\.(?=\ *\d) | (?:{_ABBREVIATIONS})\.(?!{_LETTER})             # no. 5, mr.
    | (?:[a-z]\.)+(?!{_LETTER})                                       # u.s., a.
    | \d+(?:[.,:]\d+)+(?:-{_INNER}+)*                                 # 1,000 7:15 2.5-inch
    | (?:[cdlos]|ma|qu)'{_INNER}{{2,}}                               # o'clock, ma'am
    | {_INNER}+(?:[-/.]{_INNER}+)*                                    # dog, t-shirt, and/or, mp3
    | [\#@](?=[^\W\d]){_INNER}+                                       # #hashtag
    | [!?]{{2,}} | [^\s.,:;'"`!?-]                                    # a sign, but for dropped ones
    """,
    re.VERBOSE,
)


def split_words(sentence: str) -> list[str]:
    """The lower-cased words of a sentence, as the COCO caption scores count them.

    Follows the tokeniser of the Penn Treebank ("don't" is "do", "n't"; a bracket is "-lrb-") and
    then drops the punctuation that coco-caption drops. Line breaks, control characters and what
    lies outside the Basic Multilingual Plane (emoji) count as spaces.
    """
    plain = re.sub(r"[^ -~]", _plain, unicodedata.normalize("NFC", sentence)).lower()
    return [word for piece in _WORD.findall(plain) for word in _SPELLED.get(piece, (piece,))]


def _plain(match: re.Match[str]) -> str:
    sign = match[0]
    return _SIGNS.get(sign, sign if sign.isprintable() and sign <= "\uffff" else " ")


def join_words(words: Sequence[str]) -> str:
    """A readable sentence of these words; `split_words` takes it apart into the same words again.

    The endings of contractions and the insides of brackets are joined without a space wherever
    that leaves the words as they are.
    """
    pieces: list[str] = []
    for word in words:
        written = _BRACKETS.get(word, word)
        last = pieces[-1] if pieces else ""
        joins = last and (written in _JOIN_BEFORE or last[-1] in _JOIN_AFTER)
        if joins and split_words(last + written) == [*split_words(last), word]:
            pieces[-1] = last + written
        else:
            pieces.append(written)
    return " ".join(pieces)
