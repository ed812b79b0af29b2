"""The query language: its grammar, canonical form, errors and arithmetic."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captioner.errors import InputError
from captioner.retrieval.query import Query, Term, parse, weighted_sum


def image(path, weight=1.0):
    return Term(path, weight, is_image=True)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("dog", [Term("dog")]),
        ("dog + beach", [Term("dog"), Term("beach")]),
        ("dog+beach", [Term("dog"), Term("beach")]),
        ("dog + beach - ball", [Term("dog"), Term("beach"), Term("ball", -1)]),
        ("dog -ball", [Term("dog"), Term("ball", -1)]),
        ("dog- ball", [Term("dog"), Term("ball", -1)]),
        ("- dog", [Term("dog", -1)]),
        ("-dog", [Term("dog", -1)]),
        ("+ dog", [Term("dog")]),
        ("2*snow - 0.5*dog", [Term("snow", 2), Term("dog", -0.5)]),
        ("2 * snow -.5 *dog", [Term("snow", 2), Term("dog", -0.5)]),
        ("-2*dog", [Term("dog", -2)]),
        ("1e-2*dog", [Term("dog", 0.01)]),
        ("a  dog\trunning", [Term("a dog running")]),
        ('"a dog running" + beach', [Term("a dog running"), Term("beach")]),
        ('a "dog  running" fast', [Term("a dog running fast")]),
        ('"dog + beach - 2*ball"', [Term("dog + beach - 2*ball")]),
        (r'"a \"big\" dog \\ cat"', [Term(r'a "big" dog \ cat')]),
        ("“a dog” − ball", [Term("a dog"), Term("ball", -1)]),
        ("dog – ball", [Term("dog"), Term("ball", -1)]),
        ('"a dog"-ball', [Term("a dog"), Term("ball", -1)]),
        ("t-shirt", [Term("t-shirt")]),
        ("red t-shirt - dog", [Term("red t-shirt"), Term("dog", -1)]),
        ("a black-and-white dog", [Term("a black-and-white dog")]),
        ("2 dogs + 3 men", [Term("2 dogs"), Term("3 men")]),
        ("2*2 dogs", [Term("2 dogs", 2)]),
        ("24", [Term("24")]),
        ("a man's 1,000 m race!", [Term("a man's 1,000 m race!")]),
        ("image:a.jpg", [image("a.jpg")]),
        ("image:PATH - grass + snow", [image("PATH"), Term("grass", -1), Term("snow")]),
        ("2*image:in/a+b-c*.jpg", [image("in/a+b-c*.jpg", 2)]),
        ('image:"my photos/a b.jpg" + dog', [image("my photos/a b.jpg"), Term("dog")]),
        (r'image:"C:\photos\a b.jpg"', [image(r"C:\photos\a b.jpg")]),
        ("image:https://host/a.tar/b.jpg", [image("https://host/a.tar/b.jpg")]),
        ('"image:a.jpg"', [Term("image:a.jpg")]),
        ("an image of a dog", [Term("an image of a dog")]),
    ],
)
def test_parse(text, terms):
    assert parse(text) == Query(tuple(terms))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("  dog+beach ", "dog + beach"),
        ("-dog", "- dog"),
        ('1*dog -2.0 *"two  cats"', "dog - 2*two cats"),
        ('"t-shirt" + "a - b"', 't-shirt + "a - b"'),
        ('image:"a.jpg" - image:"a b.jpg"', 'image:a.jpg - image:"a b.jpg"'),
        ('"image:x"', '"image:x"'),
        ("0.25*dog", "0.25*dog"),
    ],
)
def test_canonical_form(text, canonical):
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the query is empty; write words"),
        (" \n", "the query is empty"),
        ("dog +", r"nothing to add or subtract after a \+"),
        ("-", "nothing to add or subtract after a -"),
        ("dog + - beach", r"nothing to add or subtract after a \+"),
        ("dog --beach", "nothing to add or subtract after a -"),
        ("2*", r"no term after 2\*"),
        ("dog - 2* + cat", r"no term after 2\*"),
        ("2*-dog", r"no term after 2\*"),
        ("0*dog", "has the weight 0; weights must be above 0 and finite"),
        ("1e999*dog", "has the weight inf"),
        ("dog*2", r"\* must follow a number at the start of a term"),
        ("0,5*dog", r"\* must follow a number"),
        ("dog 2*cat", r"no \+ or - before 2\*"),
        ("2*3*cat", r"no \+ or - before 3\*"),
        ("2*(dog + cat)", r"\( does not group terms"),
        ('"a dog', 'the quotation mark " has no counterpart'),
        ("a dog”", "the quotation mark ” has no counterpart"),
        ('""', "an empty quotation"),
        ('" " + dog', "an empty quotation"),
        ("image: a.jpg", "no path after image:"),
        ("dog image:a.jpg", r"no \+ or - between 'dog' and 'a.jpg'"),
        ("image:my photo.jpg", r"no \+ or - between 'my' and 'photo.jpg'.* or quote a path"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(InputError, match=message):
        parse(text)


PHRASES = st.text(min_size=1).map(lambda text: " ".join(text.split())).filter(bool)
SYMBOLS = st.text('ab 2.5e-+*"“”„\\()–−image:', min_size=1)
WEIGHTS = st.floats(allow_nan=False, allow_infinity=False).filter(bool)
TERMS = st.builds(Term, SYMBOLS.map(lambda t: " ".join(t.split())).filter(bool) | PHRASES, WEIGHTS)
IMAGES = st.builds(Term, (SYMBOLS | PHRASES).filter(str.strip), WEIGHTS, st.just(True))


@given(st.lists(TERMS | IMAGES, min_size=1).map(lambda terms: Query(tuple(terms))))
def test_the_canonical_form_parses_to_the_query(query):
    assert parse(str(query)) == query


@given(SYMBOLS)
@example("a–-b")
def test_any_text_is_parsed_or_refused(text):
    try:
        query = parse(text)
    except InputError:
        return
    assert parse(str(query)) == query


def test_the_sum_is_computed_as_by_hand():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], np.float32)
    total = weighted_sum(vectors, parse("2*a - 0.5*b + c"))  # (2.6, -0.5, 0.8)
    assert total.dtype == np.float32
    assert total == pytest.approx(np.array([2.6, -0.5, 0.8]) / np.sqrt(7.65))
    assert np.array_equal(weighted_sum(vectors[:1], parse("- a")), [-1, 0, 0])


def test_weights_of_any_size_are_added():
    vectors = np.eye(2, dtype=np.float32)
    assert weighted_sum(vectors, parse("1e300*a + 1e300*b")) == pytest.approx([0.5**0.5] * 2)
    assert weighted_sum(vectors, parse("1e-300*a + 1e-300*b")) == pytest.approx([0.5**0.5] * 2)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_vectors_that_are_not_finite_are_an_error(value):
    vectors = np.eye(2, dtype=np.float32)
    vectors[0, 0] = value
    for text in ("a + b", "a - b"):
        with pytest.raises(
            InputError, match=r"^a vector of the query a . b is not finite; remove or"
        ):
            weighted_sum(vectors, parse(text))


@pytest.mark.parametrize("text", ["a - a", "a + b - 2*c", "0.1*a + 0.2*a - 0.3*a"])
def test_terms_that_cancel_are_an_error(text):
    rows = {"a": [0.6, 0.8], "b": [0.6, 0.8], "c": [0.6, 0.8]}
    query = parse(text)
    vectors = np.array([rows[term.text] for term in query.terms], np.float32)
    with pytest.raises(InputError, match=r"the terms of .* cancel each other out; change a term"):
        weighted_sum(vectors, query)


def test_a_single_zero_vector_is_an_error():
    with pytest.raises(InputError, match=r"^the vector of the query 2\*a is zero; choose another"):
        weighted_sum(np.zeros((1, 2), np.float32), parse("2*a"))
