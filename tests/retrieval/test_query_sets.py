"""Standard queries, files of queries, and which images captions declare right."""

import pytest

from captioner.errors import InputError
from captioner.retrieval.query import parse
from captioner.retrieval.query_sets import (
    PHOTOGRAPHS,
    SHAPES,
    STANDARD,
    read_queries,
    relevant_images,
    spellings,
    standard_queries,
    wanted,
)

WORDS = [{"two", "dogs", "beach"}, {"dog", "ball"}, {"beaches"}, set(), {"a", "dog", "running"}]


@pytest.mark.parametrize(
    ("query", "right"),
    [
        ("dog", [0, 1, 4]),
        ("dog + beach", [0]),
        ("dog - beach", [1, 4]),
        ("beach - dog + 2*beach", [2]),
        ("dog running", [4]),
        ("dog - ball - running", [0]),
        ("dog - dog running", [0, 1]),
        ("#dog + ball", [1]),
        ("cat", []),
    ],
)
def test_images_are_right_by_the_words_of_their_captions(query, right):
    assert relevant_images(parse(query), WORDS).nonzero()[0].tolist() == right


@pytest.mark.parametrize(
    ("word", "plural"),
    [
        ("dog", "dogs"),
        ("beach", "beaches"),
        ("bus", "buses"),
        ("city", "cities"),
        ("boy", "boys"),
        ("woman", "women"),
        ("child", "children"),
    ],
)
def test_plurals(word, plural):
    assert spellings(word) == {word, plural}


@pytest.mark.parametrize("queries", STANDARD)
def test_the_standard_queries_are_twelve_of_each_kind(queries):
    kinds = [wanted(parse(query)).kind for query in queries]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("simple", "complex", "negated"), 12
    )
    assert len(set(queries)) == 36
    assert all(str(parse(query)) == query for query in queries)


def test_the_standard_queries_with_known_words_are_chosen():
    for queries in STANDARD:
        known = {word for query in queries for word in query.replace("-", "+").split(" + ")}
        chosen = standard_queries(lambda text, known=known: [w for w in [text] if w not in known])
        assert chosen == queries
    assert standard_queries(lambda text: [text]) in (PHOTOGRAPHS, SHAPES)


def test_a_file_has_a_query_per_line(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("﻿# of our photographs\ndog +  beach\n\n  2*snow - dog\n#dog\n", "utf-8")
    assert read_queries(path) == ("dog + beach", "2*snow - dog", "#dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog\ndog +\n", r"queries\.txt, line 2: query 'dog \+' has nothing to add"),
        ("image:a.jpg + dog", r"line 1: query .* contains an image, so captions cannot determine"),
        ("- dog", r"line 1: query - dog only subtracts; add at least one word"),
        ("dog + .", "each term of query .* must contain a word"),
        ("dog\n dog", "line 2: dog occurs twice; remove one"),
        ("# nothing\n", r"contains no queries; write one per line, such as dog \+ beach"),
    ],
)
def test_unusable_files_of_queries_are_refused(tmp_path, text, message):
    path = tmp_path / "queries.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_queries(path)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"^query file .*gone cannot be read: No such file"):
        read_queries(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read: it is not UTF-8 text"):
        read_queries(tmp_path / "binary")
