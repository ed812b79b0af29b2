"""The vocabulary: order, encoding and decoding, files."""

import json
from pathlib import Path

import pytest

from captioner.errors import InputError
from captioner.text.tokenizer import split_words
from captioner.text.vocabulary import END, PAD, START, UNKNOWN, Vocabulary


def captions(*sentences: str) -> list[list[str]]:
    return [split_words(sentence) for sentence in sentences]


def test_vocabulary_is_ordered_by_count_then_alphabet() -> None:
    vocabulary = Vocabulary.build(captions("b a c", "b a", "b d"))
    assert vocabulary.words == ("b", "a", "c", "d")
    assert len(vocabulary) == 8
    assert Vocabulary.build(captions("d b", "a b", "c a b")).words == ("b", "a", "c", "d")
    assert Vocabulary.build(iter(captions("b a c", "b a", "b d")), min_count=2).words == ("b", "a")


def test_the_unknown_token_is_not_a_word() -> None:
    vocabulary = Vocabulary.build(captions("a <unk> dog", "<unk>"))
    assert vocabulary.words == ("a", "dog")
    assert vocabulary.encode(["<unk>"]) == [UNKNOWN]


def test_words_become_tokens_and_words_again() -> None:
    assert (PAD, START, END, UNKNOWN) == (0, 1, 2, 3)
    assert (Vocabulary.PAD, Vocabulary.START, Vocabulary.END, Vocabulary.UNKNOWN) == (0, 1, 2, 3)
    vocabulary = Vocabulary(["dog", "a"])
    assert vocabulary.encode(["a", "zebra", "dog"]) == [5, UNKNOWN, 4]
    assert vocabulary.decode([START, 5, UNKNOWN, PAD, 4, END, 4]) == ["a", "<unk>", "dog"]
    assert vocabulary.decode(iter([])) == []
    assert "dog" in vocabulary
    assert "zebra" not in vocabulary
    assert "<pad>" not in vocabulary


def test_decode_accepts_a_tensor() -> None:
    torch = pytest.importorskip("torch")
    assert Vocabulary(["dog"]).decode(torch.tensor([1, 4, 2])) == ["dog"]


@pytest.mark.parametrize("token", [-1, 5])
def test_decode_refuses_a_token_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(InputError, match=f"token {token} is not in the vocabulary of 5 tokens"):
        Vocabulary(["dog"]).decode([token])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dog", "dog"], "'dog' is repeated"),
        (["dog", "<end>"], "'<end>' is reserved"),
        (["dog", ""], "strings without white space, got ''"),
        (["hot dog"], "strings without white space, got 'hot dog'"),
        ([3], "strings without white space, got 3"),
    ],
)
def test_words_that_cannot_be_in_a_vocabulary_are_refused(
    words: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        Vocabulary(words)
    path = tmp_path / "vocabulary.json"
    path.write_text(json.dumps({"format": 1, "words": words}))
    with pytest.raises(InputError, match=rf"vocabulary\.json: .*{message}"):
        Vocabulary.load(path)


def test_build_refuses_wrong_arguments() -> None:
    with pytest.raises(InputError, match="lists of words, got 'a dog'"):
        Vocabulary.build(["a dog"])
    with pytest.raises(InputError, match="min_count must be at least 1, got 0"):
        Vocabulary.build(captions("a dog"), min_count=0)
    with pytest.raises(InputError, match="no word occurs at least 2 times"):
        Vocabulary.build(captions("a dog"), min_count=2)
    with pytest.raises(InputError, match="the captions contain no words; add"):
        Vocabulary.build([])


def test_saved_vocabulary_is_readable_and_loads(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary = Vocabulary(["a", "n't", "café", '"'])
    vocabulary.save(path)
    assert "café" in path.read_text(encoding="utf-8").split('"')
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "format": 1,
        "words": list(vocabulary.words),
    }
    assert Vocabulary.load(str(path)).words == vocabulary.words


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read: "),
        (b'{"format": 1, "words": ["a"', "cannot be read: "),
        (b"\xff\xfe", "cannot be read: "),
        (b"[" * 100_000, "cannot be read: "),
        (b"[]", "it has no list of words"),
        (b'{"format": 1}', "it has no list of words"),
        (b'{"format": 1, "words": "a dog"}', "it has no list of words"),
        (
            b'{"words": ["a"]}',
            "has format None, but this version of captioner reads formats 1 and 2",
        ),
        (
            b'{"format": 3, "words": ["a"]}',
            "has format 3, but this version of captioner reads formats 1 and 2",
        ),
    ],
)
def test_load_refuses_a_damaged_or_different_file(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"vocabulary\.json:? .*{message}"):
        Vocabulary.load(path)


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.json cannot be read: .*No such file"):
        Vocabulary.load(tmp_path / "missing.json")
