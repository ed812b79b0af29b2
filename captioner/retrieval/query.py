"""The query language: terms with signs and weights, such as `2*snow - "a dog" + image:a.jpg`.

    query   = [sign] term (sign term)*
    term    = [number *] (phrase | image:PATH)
    phrase  = adjacent words and quoted texts

Queries are parsed and the vectors of terms are added here; `Linker.encode_query` encodes the terms.
A hyphen within a word is part of the word, as in `t-shirt`. Within quotation marks, signs are
plain text, and a quotation mark or a backslash is written after a backslash. A path that is not
quoted ends at the first space.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

_DASH = r"\-−–—"  # text editors replace - by the others, and " by the following
_MARK = '"“”„'
_LETTER = rf"[^\s{_MARK}+*(){_DASH}]"  # a character of a word
_QUOTED = r'"(?:[^"\\]|\\.)*"|[“„][^“”]*[“”]'
_TOKEN = re.compile(
    rf"""
      (?P<sign>[+{_DASH}])
    | (?P<weight>(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?)\s*\*
    | image:(?:(?P<image>[^\s{_MARK}]\S*) | (?P<quoted_image>{_QUOTED}))
    | (?P<quoted>{_QUOTED})
    | (?P<word>{_LETTER}+(?:[{_DASH}]+{_LETTER}+)*)
    """,
    re.VERBOSE | re.DOTALL,
)
CANCELLED = 1e-6  # a shorter sum, relative to the sum of the weights, consists of rounding errors


@dataclass(frozen=True)
class Term:
    """A phrase or an image, and the weight of its vector.

    text: the phrase, with single spaces between its words, or the path or URL of the image.
    weight: finite and not 0; negative for a term that is subtracted.
    """

    text: str
    weight: float = 1.0
    is_image: bool = False


@dataclass(frozen=True)
class Query:
    """One or more terms; `str` returns the canonical form, which `parse` accepts."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        written = " ".join(f"{'-' if t.weight < 0 else '+'} {_write(t)}" for t in self.terms)
        return written.removeprefix("+ ")


def parse(text: str) -> Query:
    """Parse a query; raise an InputError that describes the mistake if the query is invalid."""
    groups: list[tuple[str, list[tuple[str, str]]]] = [("", [])]
    for kind, value in _tokens(text):
        if kind == "sign":
            groups.append(("+" if value == "+" else "-", []))
        else:
            groups[-1][1].append((kind, value))
    if not groups[0][1]:  # the query begins with a sign, or is empty
        del groups[0]
    if not groups:
        raise InputError("the query is empty; write words, such as dog + beach")
    for sign, tokens in groups:
        if not tokens:
            raise InputError(
                f"query {text!r} has nothing to add or subtract after a {sign}; write a word after "
                "it, or quote text that contains signs"
            )
    return Query(tuple(_term(text, sign, tokens) for sign, tokens in groups))


def weighted_sum(vectors: np.ndarray, query: Query) -> np.ndarray:
    """Return the sum of the vectors (T, E) of the terms with their weights, scaled to norm 1.

    The result (E,) is float32. Raises InputError if the vectors cancel each other out, if the only
    vector is zero, or if one is not finite.
    """
    weights = np.array([term.weight for term in query.terms])
    weights /= np.abs(weights).max()
    with np.errstate(invalid="ignore"):  # infinite values, which the norm shows
        total = weights @ vectors.astype(np.float64)
    norm = np.linalg.norm(total)
    if not norm < math.inf:  # also true for NaN
        raise InputError(f"a vector of the query {query} is not finite; remove or change its term")
    if not CANCELLED * np.abs(weights).sum() < norm:
        if len(vectors) == 1:
            raise InputError(f"the vector of the query {query} is zero; choose another term")
        raise InputError(f"the terms of {query} cancel each other out; change a term or a weight")
    scaled: np.ndarray = (total / norm).astype(np.float32)
    return scaled


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and value of each token: sign, weight, image, quoted or word."""
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise InputError(f"query {text!r} cannot be parsed: {_mistake(text[position:])}")
        kind = str(match.lastgroup)
        value = match[kind]
        if kind.startswith("quoted"):
            value = _unquote(value)
            if not value.strip():
                raise InputError(f"query {text!r} contains an empty quotation; remove it")
        elif kind == "word" and value == "image:":
            raise InputError(
                f"query {text!r} has no path after image:; write one directly after the colon, as "
                "in image:photo.jpg"
            )
        yield kind.removeprefix("quoted_"), value
        position = match.end()


def _mistake(rest: str) -> str:
    """Return the reason why no token begins here, followed by advice."""
    if rest.startswith("*"):
        return "* must follow a number at the start of a term, as in 0.5*dog"
    if rest[0] in "()":
        return f"{rest[0]} does not group terms; give each term a weight, or quote the text"
    return f"the quotation mark {rest[0]} has no counterpart; add or remove one"


def _unquote(quoted: str) -> str:
    inner = quoted[1:-1]
    return re.sub(r'\\(["\\])', r"\1", inner) if quoted[0] == '"' else inner


def _term(text: str, sign: str, tokens: Sequence[tuple[str, str]]) -> Term:
    """Build a term from its tokens, of which there is at least one."""
    weight = 1.0
    if tokens[0][0] == "weight":
        weight, tokens = float(tokens[0][1]), tokens[1:]
        if not 0 < weight < math.inf:
            raise InputError(
                f"query {text!r} has the weight {weight:g}; weights must be above 0 and finite, "
                "and a term that is subtracted has a minus before it; change the weight"
            )
    if not tokens:
        raise InputError(f"query {text!r} has no term after {weight:g}*; write one after the *")
    signed = -weight if sign == "-" else weight
    for number, (kind, value) in enumerate(tokens):
        if kind == "weight":
            raise InputError(f"query {text!r} has no + or - before {value}*; write one")
        if number and "image" in (kind, tokens[number - 1][0]):
            raise InputError(
                f"query {text!r} has no + or - between {tokens[number - 1][1]!r} and {value!r}; "
                "write one, or quote a path with spaces"
            )
    if tokens[0][0] == "image":
        return Term(tokens[0][1], signed, is_image=True)
    return Term(" ".join(" ".join(value for _, value in tokens).split()), signed)


def _write(term: Term) -> str:
    """Return the canonical form of a term without its sign."""
    size = abs(float(term.weight))
    number = str(int(size)) if size.is_integer() else repr(size)
    factor = "" if size == 1 else f"{number}*"
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", term.text) + '"'
    if term.is_image:
        bare = re.fullmatch(rf"[^\s{_MARK}]\S*", term.text)
        return f"{factor}image:{term.text if bare else quoted}"
    try:
        words = [value for kind, value in _tokens(term.text) if kind == "word"]
    except InputError:
        words = []
    return factor + (term.text if " ".join(words) == term.text else quoted)
