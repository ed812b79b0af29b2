"""Splitting texts into sentences."""

import pytest

from captioner.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" . \n ! ", []),
        ("A dog runs", ["A dog runs"]),
        ("A dog runs. It is wet!  Why?", ["A dog runs.", "It is wet!", "Why?"]),
        ("A dog runs .\nTwo men", ["A dog runs .", "Two men"]),
        ("one\n\n two \r\nthree", ["one", "two", "three"]),
        ("Mr. Smith met Dr. Who. They left.", ["Mr. Smith met Dr. Who.", "They left."]),
        ("J. R. Smith, e.g. a man, runs. So", ["J. R. Smith, e.g. a man, runs.", "So"]),
        ('He said "stop." Then (why not?) he ran.', ['He said "stop."', "Then (why not?) he ran."]),
        ("It weighs 2.5 kg, see a.b.c for more.", ["It weighs 2.5 kg, see a.b.c for more."]),
        ("走る。 犬", ["走る。", "犬"]),
    ],
)
def test_sentences(text, sentences):
    assert split_sentences(text) == sentences


def test_a_line_break_ends_a_sentence_even_after_an_abbreviation():
    assert split_sentences("seen by Mr.\nSmith") == ["seen by Mr.", "Smith"]
