"""Scores of search queries on a split: P@5, MAP, and the effect of subtracting a word.

Shapes: I images, E embedding dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from ...data.concepts import image_number
from ...data.dataset import Example
from ...errors import InputError
from ...linker import Linker
from ...metrics.ranking import K, average_precision, precision_at
from ...retrieval.query import Query, parse
from ...retrieval.query_sets import relevant_images, standard_queries, wanted
from ...text.tokenizer import plain_words

KINDS = ("simple", "complex", "negated")
TITLES = {"simple": "one word", "complex": "several words"}


@dataclass(frozen=True)
class ScoredQuery:
    """A query with its scores.

    kind: one of KINDS. precision: P@K. average_precision: over all images. chance: the fraction of
    relevant images. alone: P@K of the query without its negative terms, with the same relevant
    images; None for a query without negative terms. scores (I,): the score of each image. relevant
    (I,): whether an image is relevant.
    """

    query: str
    kind: str
    precision: float
    average_precision: float
    chance: float
    alone: float | None
    scores: np.ndarray = field(repr=False)
    relevant: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class QueryScores:
    """The scores of queries. left_out: the queries that were not scored, each with the reason."""

    queries: tuple[ScoredQuery, ...]
    left_out: Mapping[str, str]

    @property
    def numbers(self) -> dict[str, float]:
        """The mean scores by name, from 0 to 1; a kind without queries has no entry.

        "P@5", "MAP" and "chance" are means over the queries that only add; the suffixes "_simple"
        and "_complex" select one kind. "P@5_negated" is the mean over the queries that subtract,
        and "P@5_negated_alone" over the same queries without their negative terms.
        """
        numbers: dict[str, float] = {}
        adding = [each for each in self.queries if each.kind != "negated"]
        groups = {"": adding} | {f"_{k}": [q for q in adding if q.kind == k] for k in KINDS[:2]}
        for name, group in groups.items():
            if group:
                numbers[f"P@{K}{name}"] = fmean(each.precision for each in group)
                numbers[f"MAP{name}"] = fmean(each.average_precision for each in group)
                numbers[f"chance{name}"] = fmean(each.chance for each in group)
        if negated := [each for each in self.queries if each.alone is not None]:
            numbers[f"P@{K}_negated"] = fmean(each.precision for each in negated)
            numbers[f"P@{K}_negated_alone"] = fmean(each.alone or 0.0 for each in negated)
        return numbers

    @property
    def content(self) -> dict[str, Any]:
        """The mean scores, the scores of each query, and the queries left out, for JSON."""
        rows = [
            {"query": q.query, f"P@{K}": q.precision, "AP": q.average_precision, "chance": q.chance}
            | ({} if q.alone is None else {f"P@{K}_alone": q.alone})
            for q in self.queries
        ]
        return {**self.numbers, "queries": rows, "left_out": dict(self.left_out)}

    def describe(self) -> str:
        """Return the mean scores, and the queries that were left out, as lines of text."""
        numbers, lines = self.numbers, []
        counts = {kind: sum(q.kind == kind for q in self.queries) for kind in KINDS}
        for name in (f"P@{K}", "MAP"):
            if name in numbers:
                parts = ", ".join(
                    f"{numbers[f'{name}_{kind}']:.2f} {TITLES[kind]} ({counts[kind]})"
                    for kind in KINDS[:2]
                    if counts[kind]
                )
                lines.append(f"queries: {name} {numbers[name]:.2f}; {parts}")
        if lines:
            lines[-1] += f"; by chance {numbers['chance']:.2f}"
        if counts["negated"]:
            lines.append(
                f"A - B: P@{K} {numbers[f'P@{K}_negated']:.2f} of images with A and without B; "
                f"searching for A alone gives {numbers[f'P@{K}_negated_alone']:.2f} "
                f"({counts['negated']} queries)"
            )
        for reason in dict.fromkeys(self.left_out.values()):
            names = ", ".join(query for query, why in self.left_out.items() if why == reason)
            lines.append(f"left out: {names} ({reason})")
        return "\n".join(lines)


UNKNOWN, NO_IMAGE = "unknown words", "no relevant image"


def score_queries(
    linker: Linker,
    rows: np.ndarray,
    examples: Sequence[Example],
    queries: Sequence[str] | None = None,
) -> QueryScores:
    """Search the images for each query; their captions determine which images are relevant.

    rows (I, E): embeddings of the images of the examples. queries: in the query language; None
    selects the standard ones. Queries with unknown words or without a relevant image are left out.
    Raises InputError for an invalid query, or one that `wanted` rejects.
    """
    known = linker.texts.unknown_words
    words = [{w for text in e.captions for w in plain_words(text)} for e in examples]
    scored, left_out = [], {}
    for text in standard_queries(known) if queries is None else queries:
        query = parse(text)
        relevant = relevant_images(query, words)
        if any(known(term.text) for term in query.terms):
            left_out[str(query)] = UNKNOWN
        elif not relevant.any():
            left_out[str(query)] = NO_IMAGE
        else:
            scored.append(_score(linker, rows, query, relevant))
    return QueryScores(tuple(scored), left_out)


def _score(linker: Linker, rows: np.ndarray, query: Query, relevant: np.ndarray) -> ScoredQuery:
    scores, kind = rows @ linker.encode_query(query), wanted(query).kind
    alone = None
    if kind == "negated":
        positive = Query(tuple(term for term in query.terms if term.weight > 0))
        alone = precision_at(rows @ linker.encode_query(positive), relevant)
    return ScoredQuery(
        str(query),
        kind,
        precision_at(scores, relevant),
        average_precision(scores, relevant),
        float(relevant.mean()),
        alone,
        scores,
        relevant,
    )


@dataclass(frozen=True)
class ConceptScores:
    """The average precision of concepts. left_out: those not scored, each with the reason."""

    average_precision: Mapping[str, float]
    left_out: Mapping[str, str]

    @property
    def content(self) -> dict[str, Any]:
        """The mean and all values, for JSON; there is no mean if no concept was scored."""
        values = dict(self.average_precision)
        mean = {"MAP": fmean(values.values())} if values else {}
        return {**mean, "AP": values, "left_out": dict(self.left_out)}

    def describe(self) -> str:
        """Return the mean, and the concepts that were left out, as lines of text."""
        values = self.average_precision
        lines = []
        if values:
            lines.append(f"MAP {fmean(values.values()):.3f} over {len(values)} concepts")
        for name, reason in self.left_out.items():
            lines.append(f"left out: concept {name} ({reason})")
        return "\n".join(lines)


def score_concepts(
    linker: Linker, rows: np.ndarray, examples: Sequence[Example], concepts: Mapping[str, set[int]]
) -> ConceptScores:
    """Search for the name of each concept; the images annotated with the concept are relevant.

    rows: as in `score_queries`. concepts: as returned by `data.concepts.read_concepts`. Images
    without a number in their name are ignored, and concepts with unknown words or without a
    relevant image are left out. Raises InputError if no image has a number.
    """
    numbers = [image_number(example) for example in examples]
    if all(number is None for number in numbers):
        raise InputError(
            "concepts need images named im1.jpg, im2.jpg, ..., but the split has none; choose "
            "another --data or omit --concepts"
        )
    chosen = np.array([number is not None for number in numbers])
    found, left_out = {}, {}
    for name, annotated in concepts.items():
        relevant = np.array([number in annotated for number in numbers])[chosen]
        text = name.removesuffix("_r1").replace("_", " ")
        if linker.texts.unknown_words(text):
            left_out[name] = UNKNOWN
        elif not relevant.any():
            left_out[name] = NO_IMAGE
        else:
            scores = rows[chosen] @ linker.encode_texts(text)[0]
            found[name] = average_precision(scores, relevant)
    return ConceptScores(found, left_out)
