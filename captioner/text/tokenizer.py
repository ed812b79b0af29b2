"""Splitting sentences into words as in COCO evaluation, and joining words."""

import re
import unicodedata
from collections.abc import Sequence

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

_ABBREVIATIONS = (
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
    | no\.(?=\ *\d) | (?:{_ABBREVIATIONS})\.(?!{_LETTER})             # no. 5, mr.
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


def split_words(sentence: str) -> list[str]:
    """Return the lower-cased words of a sentence, tokenised as for the COCO caption scores.

    Follows the Penn Treebank tokeniser ("don't" becomes "do", "n't", and "(" becomes "-lrb-"), then
    drops the punctuation that coco-caption drops. Line breaks, control characters and
    characters outside the Basic Multilingual Plane (emoji) count as spaces.
    """
    plain = re.sub(r"[^ -~]", _replacement, unicodedata.normalize("NFC", sentence)).lower()
    return [word for piece in _WORD.findall(plain) for word in _RESPELLED.get(piece, (piece,))]


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
