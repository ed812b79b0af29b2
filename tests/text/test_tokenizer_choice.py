"""Tokenizers for scripts without spaces: characters, functions, and what checkpoints store."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.errors import InputError
from captioner.text import tokenizer as module
from captioner.text.tokenizer import (
    CHARACTERS,
    WORDS,
    get_tokenizer,
    join_characters,
    one_word_note,
    split_characters,
    split_words,
    stored_tokenizer,
)
from captioner.text.vocabulary import Vocabulary


@pytest.mark.parametrize(
    ("sentence", "pieces"),
    [
        ("一只棕色的狗。", "一 只 棕 色 的 狗"),
        ("「犬」が、走る！", "犬 が 走 る"),
        ("（两只狗）“跑”", "两 只 狗 跑"),
        ("3只Dog和T-shirt", "3 只 dog 和 t-shirt"),
        ("สุนัขวิ่ง", "สุ นั ข วิ่ ง"),  # marks stay with their character
        ("The dog's red, 犬", "the dog 's red 犬"),
        ("개가 달린다", "개가 달린다"),  # Korean has spaces
        ("𠮷野家の丼", "𠮷 野 家 の 丼"),  # outside the Basic Multilingual Plane
        ("", ""),
    ],
)
def test_characters(sentence, pieces):
    assert split_characters(sentence) == pieces.split()


@pytest.mark.parametrize("sentence", ["一只棕色的狗", "3 只狗和 dog", "สุนัขวิ่ง", "a dog's ball"])
def test_characters_are_joined_without_spaces(sentence):
    assert join_characters(split_characters(sentence)) == sentence


@given(st.lists(st.sampled_from(["一", "只", "が", "dog", "3", "วิ่", "n't", "-lrb-"])))
def test_joined_characters_are_split_into_the_same(words):
    assert split_characters(join_characters(words)) == words


@given(st.text(st.characters(codec="ascii")))
def test_other_scripts_have_the_same_words(sentence):
    assert split_characters(sentence) == split_words(sentence)


def by_pairs(sentence):
    """Words of two characters, and spaces, as segmenters return them."""
    return [sentence[i : i + 2] for i in range(0, len(sentence), 2)]


def test_a_function_splits():
    tokenizer = get_tokenizer(by_pairs)
    assert tokenizer.name == f"{__name__}:by_pairs"
    assert tokenizer.split("一只 狗在跑") == ["一只", "狗", "在跑"]
    assert tokenizer.join(["一只", "狗"]) == "一只狗"
    named = get_tokenizer(f"{__name__}:by_pairs")
    assert (named.name, named.split("一只狗")) == (tokenizer.name, ["一只", "狗"])


def fails(sentence):
    raise KeyError(sentence)


def fails_later(sentence):
    yield sentence
    raise RuntimeError


@pytest.mark.parametrize(
    ("function", "raised"), [(fails, "KeyError: 'a dog'"), (fails_later, "RuntimeError")]
)
def test_an_exception_of_a_function_names_it_and_the_text(function, raised):
    message = f"the tokenizer '{__name__}:{function.__name__}' failed for 'a dog': it raised "
    for choice in (function, f"{__name__}:{function.__name__}"):
        with pytest.raises(InputError) as caught:
            get_tokenizer(choice).split("a dog")
        assert str(caught.value) == f"{message}{raised}; correct the function"


def test_an_input_error_of_a_function_is_kept():
    def refuse(_):
        raise InputError("install jieba")

    with pytest.raises(InputError, match=r"^install jieba$"):
        get_tokenizer(refuse).split("a dog")


def test_a_module_that_fails(tmp_path, monkeypatch):
    (tmp_path / "failing_words.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = (
        "^the tokenizer 'failing_words:split' cannot be imported: its module raised "
        "ZeroDivisionError: division by zero; correct the module$"
    )
    with pytest.raises(InputError, match=message):
        get_tokenizer("failing_words:split")


@pytest.mark.parametrize("found", ["A", b"A", 3, None, ["a", 3]])
def test_a_function_that_returns_no_words_is_refused(found):
    with pytest.raises(InputError, match=r"^the tokenizer '.*' must return a list of words, got "):
        get_tokenizer(lambda _: found).split("a")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("char", "unknown tokenizer 'char'; choose words, characters, or module:function"),
        (
            "no_such_module:cut",
            "'no_such_module:cut' cannot be imported: No module named 'no_such_module'; check",
        ),
        ("json:cut", "'json:cut' cannot be imported: module 'json' has no attribute 'cut'"),
        ("json:__name__", "'json:__name__' is not a function"),
        (":cut", "unknown tokenizer ':cut'"),
    ],
)
def test_unknown_tokenizers(name, message):
    with pytest.raises(InputError, match=message):
        get_tokenizer(name)


def test_a_vocabulary_stores_its_tokenizer(tmp_path):
    path = tmp_path / "vocabulary.json"
    Vocabulary(["a"]).save(path)
    assert json.loads(path.read_text()) == {"format": 1, "words": ["a"]}  # older versions read it
    assert Vocabulary.load(path).tokenizer is WORDS
    Vocabulary(["犬"], CHARACTERS).save(path)
    assert Vocabulary.load(path).tokenizer is CHARACTERS
    assert not Vocabulary(["犬"], CHARACTERS).same_as(Vocabulary(["犬"]))
    path.write_text('{"format": 2, "tokenizer": 3, "words": ["a"]}')
    with pytest.raises(InputError, match=r"vocabulary.json is not a vocabulary: its token"):
        Vocabulary.load(path)


def test_a_function_named_in_a_file_is_never_imported(tmp_path, monkeypatch):
    """A checkpoint of a stranger may name any function."""
    monkeypatch.setattr(module, "import_module", None)
    monkeypatch.setattr(os, "system", None)
    path = tmp_path / "vocabulary.json"
    path.write_text('{"format": 2, "tokenizer": "os:system", "words": ["a"]}')
    vocabulary = Vocabulary.load(path)
    assert vocabulary.tokenizer.join(["a", "dog"]) == "a dog"
    with pytest.raises(InputError, match="is the Python function os:system, which checkpoints do"):
        vocabulary.tokenizer.split("rm")


def test_the_function_of_a_loaded_vocabulary_is_given_again(tmp_path):
    path = tmp_path / "vocabulary.json"
    Vocabulary(["一只"], get_tokenizer(by_pairs)).save(path)
    loaded = Vocabulary.load(path)
    assert loaded.with_function(by_pairs).tokenizer.split("一只狗") == ["一只", "狗"]
    with pytest.raises(InputError, match=r"function .*by_pairs, not characters; pass that"):
        loaded.with_function("characters")
    assert loaded.with_function(list).tokenizer.name == f"{__name__}:by_pairs"
    assert stored_tokenizer("characters") is CHARACTERS


def test_most_captions_of_one_word_are_noted():
    assert "pass --tokenizer characters" in one_word_note(["一只狗", "狗", "a dog"], WORDS)
    assert one_word_note(["一只狗", "a dog", "the dog"], WORDS) == ""
    assert one_word_note(["狗"], CHARACTERS) == ""
    assert one_word_note([], WORDS) == ""
