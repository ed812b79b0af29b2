"""`captioner index --texts`: which texts have rows, updates, resuming and what is reported."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from captioner import Index, Linker
from captioner import __main__ as commands
from captioner.data.readers import read_captions
from captioner.errors import InputError
from captioner.inference import text_indexing
from tests.support import linking, tiny


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def embedded(monkeypatch):
    """The texts that are embedded, in order."""
    texts, embed = [], text_indexing.embed_texts

    def count(linker, block, batch_size):
        texts.extend(block)
        return embed(linker, block, batch_size)

    monkeypatch.setattr(text_indexing, "embed_texts", count)
    return texts


def index(run, *sources):
    words = ["index", "--texts", *map(str, sources), "--checkpoint", str(run)]
    commands.main([*words, "--output", "texts.index", "--device", "cpu"])


def texts():
    return Index.open("texts.index").texts


def write(name, *lines):
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def check_rows(run):
    """Each row must embed its text."""
    expected = Linker.from_pretrained(run, "cpu").encode_texts(texts(), on_unknown="return")[0]
    np.testing.assert_allclose(Index.open("texts.index").rows, expected, atol=2e-3)


def test_texts_with_the_same_words_have_one_row(run, capsys):
    write("a.txt", "Red  and nothing else.", "blue", "", "red and nothing else")
    Path("b.csv").write_text("caption\nBlue!\nwhite\n")
    index(run, "a.txt", "b.csv")
    assert texts() == ["Red and nothing else.", "blue", "white"]
    out, err = capsys.readouterr()
    assert out == (
        "index: texts.index, 3 texts: 3 embedded, 0 unchanged, 0 removed\n"
        "duplicates: 2, with the same words as an earlier text\n"
    )
    assert err == ""
    check_rows(run)
    lines = Path("texts.index/texts-1.jsonl").read_text().splitlines()
    a, b = (str(Path(name).resolve()) for name in ("a.txt", "b.csv"))
    assert [json.loads(line)["sources"] for line in lines] == [[a], [a, b], [b]]


def test_the_training_captions_are_the_default(run, tmp_path_factory):
    data = read_captions(tiny.data(tmp_path_factory))
    captions = [text for example in data.split("train") for text in example.captions]
    index(run)
    assert texts() == list(dict.fromkeys(captions))
    Path("texts.index").rename("default.index")
    index(run, tiny.data(tmp_path_factory))  # the train split of a data set
    assert texts() == list(dict.fromkeys(captions))


def test_only_changes_are_embedded(run, embedded, capsys):
    write("a.txt", "red", "blue", "white")
    write("b.txt", "black", "red")
    index(run, "a.txt", "b.txt")
    assert embedded == ["red", "blue", "white", "black"]
    embedded.clear()
    write("a.txt", "white", "grey")
    index(run, "a.txt")
    assert embedded == ["grey"]
    assert texts() == ["red", "white", "black", "grey"]  # b.txt was not named
    assert "4 texts: 1 embedded, 3 unchanged, 1 removed" in capsys.readouterr().out
    check_rows(run)
    index(run, "b.txt")
    assert embedded == ["grey"]
    assert texts() == ["red", "white", "black", "grey"]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("together", [True, False])
def test_a_text_stays_while_a_source_contains_it(run, embedded, first, together):
    names = ["a.txt", "b.txt"][:: 1 - 2 * first]
    write("a.txt", "red", "blue")
    write("b.txt", "Red", "white")
    for sources in [names] if together else [[name] for name in names]:
        index(run, *sources)
    assert embedded == [*(["Red", "white", "blue"] if first else ["red", "blue", "white"])]
    for count, name in enumerate(names, 1):
        write(name, "black")
        index(run, name)
        kept = {text.lower() for text in texts()}
        assert ("red" in kept) == (count == 1)
        check_rows(run)
    assert kept == {"black"}
    (line,) = Path("texts.index").glob("texts-*.jsonl")
    sources = json.loads(line.read_text())["sources"]
    assert sources == [str(Path(name).resolve()) for name in names]


def test_standard_input_keeps_a_text(run, monkeypatch):
    write("a.txt", "red", "blue")
    index(run, "a.txt")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"red\n")))
    index(run, "-")
    write("a.txt", "white")
    index(run, "a.txt")
    assert texts() == ["red", "white"]


def test_standard_input_adds_texts(run, monkeypatch):
    for content in (b"red\r\nblue\n", b"grey\n"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        index(run, "-")
    assert texts() == ["red", "blue", "grey"]


def test_an_interrupted_run_continues(run, embedded, monkeypatch):
    monkeypatch.setattr(text_indexing, "BLOCK", 2)
    write("a.txt", "red", "blue", "white", "black", "grey")
    append, calls = text_indexing.IndexWriter.append, []

    def stop_at_second(self, *arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(self, *arguments)

    monkeypatch.setattr(text_indexing.IndexWriter, "append", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        index(run, "a.txt")
    assert texts() == ["red", "blue"]
    embedded.clear()
    index(run, "a.txt")
    assert embedded == ["white", "black", "grey"]
    assert texts() == ["red", "blue", "white", "black", "grey"]
    check_rows(run)


def test_lost_rows_are_embedded_again(run):
    write("a.txt", "red", "blue", "white")
    index(run, "a.txt")
    path = Path("texts.index/rows-1.npy")
    path.write_bytes(path.read_bytes()[:-5])
    write("b.txt", "grey")
    index(run, "b.txt")
    assert texts() == ["red", "blue", "white", "grey"]
    check_rows(run)


def test_lost_rows_survive_a_second_interruption(run, embedded, monkeypatch):
    write("a.txt", "red", "blue", "white")
    write("b.txt", "grey", "white")
    index(run, "a.txt", "b.txt")
    path = Path("texts.index/rows-1.npy")
    path.write_bytes(path.read_bytes()[:-5])  # grey is lost

    def stop(*_):
        raise KeyboardInterrupt

    write("a.txt", "red", "black")
    with monkeypatch.context() as patch:
        patch.setattr(text_indexing, "_append", stop)
        with pytest.raises(KeyboardInterrupt):
            index(run, "a.txt")
    assert texts() == ["red", "white"]
    embedded.clear()
    index(run, "a.txt")
    assert embedded == ["grey", "black"]
    assert texts() == ["red", "white", "grey", "black"]
    check_rows(run)


def test_unknown_words_are_counted_and_texts_without_known_words_listed(run, capsys):
    write("a.txt", "red zebra", "zebra", "red", "?!")
    message = r"^2 of 4 texts could not be indexed, because they have no known words; see the"
    with pytest.raises(InputError, match=message):
        index(run, "a.txt")
    assert texts() == ["red zebra", "red"]
    assert (
        "3 of 4 texts contain words that are unknown to the sentence encoder: 'zebra' (2), '?!' (1)"
        in (capsys.readouterr().err)
    )
    skipped = map(json.loads, Path("texts.index/skipped.jsonl").read_text().splitlines())
    assert [each["text"] for each in skipped] == ["zebra", "?!"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--texts", "gone.csv"], "^.*/gone.csv does not exist or is not a file; check the path$"),
        (["--texts", "empty"], "^directory .*/empty contains no captions in a known layout"),
        (["--texts", "--workers", "1"], "^--workers has no effect on texts; omit it$"),
        (
            ["--texts", "a.txt", "--cache", "c"],
            "^--cache has no effect if --texts names sources; omit",
        ),
        ([], "^an index contains either images or texts; pass images or --texts$"),
        (["a.png", "--texts"], "^an index contains either images or texts; pass images and --tex"),
    ],
)
def test_errors(run, words, message):
    Path("empty").mkdir()
    with pytest.raises(InputError, match=message):
        commands.main(["index", *words, "--checkpoint", str(run), "--output", "texts.index"])
    assert not Path("texts.index").exists()


def test_training_data_that_no_longer_exists(run, monkeypatch):
    inspect = text_indexing.checkpoint.inspect

    def moved(path):
        found, config = inspect(path)
        return found, {**config, "data": {**config["data"], "path": "/gone"}}

    monkeypatch.setattr(text_indexing.checkpoint, "inspect", moved)
    with pytest.raises(InputError, match=r"^training data /gone no longer exists; pass its"):
        index(run)


def test_images_cannot_be_added_to_an_index_of_texts(run, tmp_path_factory):
    write("a.txt", "red")
    index(run, "a.txt")
    message = (
        "^texts.index contains texts, so images cannot be added to it; choose another --output"
    )
    photos = str(tiny.data(tmp_path_factory) / "val")
    with pytest.raises(InputError, match=message):
        commands.main(
            ["index", photos, "--checkpoint", str(run), "--output", "texts.index", "--cache", "c"]
        )


def test_texts_are_compared_by_short_digests_of_their_words():
    key = text_indexing._key
    assert key("A red dog!") == key("a  red dog")
    assert len({key("a red"), key("ared"), key("red a"), key("?!"), key("!?"), key("\udc80")}) == 6
    assert {len(key(text)) for text in ("a", "a red dog " * 50, "?!")} == {16}
