"""The options of sentence vectors: contradictions are refused, and torch is not imported."""

import pytest

from captioner.errors import InputError
from captioner.text.options import TextVectorOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_vectors": ()}, "^text_vectors is empty; choose counts, "),
        ({"text_vectors": ("lsa", "a", "lsa")}, "^text_vectors lists 'lsa' twice; list it once$"),
        ({"text_min_count": 0}, "^text_min_count must be at least 1, got 0$"),
        ({"text_dimensions": 0}, "^text_dimensions must be at least 1, got 0$"),
        ({"text_vectors": "lsa"}, "^text_vectors must be a list of str"),
    ],
)
def test_unsuitable_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TextVectorOptions(**options)


def test_lists_become_tuples():
    assert TextVectorOptions(text_vectors=["lsa", "a.npy"]).text_vectors == ("lsa", "a.npy")
