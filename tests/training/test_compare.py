"""Comparing text vectors: the table, its JSON, resuming, and what is refused."""

import importlib.util
import json
from pathlib import Path

import pytest

from captioner import __main__ as command
from captioner.errors import InputError
from tests.support import linking, tiny

PLAIN = "--text-min-count 1 --text-dimensions 8 --batch-size 8 --epochs 1 --image-size 32"
PLAIN += " --precision float32 --workers 0 --device cpu"


@pytest.fixture
def words(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("queries.txt").write_text("red\nred + sees\nred - blue\nzebra\n")
    weights = linking.encoder_weights(tmp_path_factory)
    sources = ["--data", str(tiny.data(tmp_path_factory)), "--encoder-weights", str(weights)]
    return ["compare", *sources, "--queries", "queries.txt", *PLAIN.split()]


def test_a_table_and_a_json_file_compare_text_vectors(words, capsys):
    command.main([*words, "--text-vectors", "lsa", "ppmi-svd-tf-idf"])
    text = capsys.readouterr().out
    table = [line for line in text.splitlines() if line.startswith("|")]
    titles = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert titles[:2] == ["text vectors", "P@5"]
    assert titles[-3:] == ["A - B", "A alone", "seconds"]
    assert all(line.count("|") == table[0].count("|") for line in table)
    rows = json.loads(Path("comparison.json").read_text())
    assert [row["text_vectors"] for row in rows] == ["lsa", "ppmi-svd-tf-idf"]
    for row, line in zip(rows, table[2:], strict=True):
        assert row["images"] == 10  # 7 of val and 3 of test
        assert f"| `{row['text_vectors']}` | {row['P@5']:.2f} |" in line
        assert row["left_out"] == {"zebra": "unknown words"}
        assert Path(row["run"], "best").is_dir()
    assert "10 images outside the train split, 3 queries" in text


def test_a_comparison_continues_without_training_again(words, capsys):
    command.main([*words, "--text-vectors", "lsa"])
    before = json.loads(Path("comparison.json").read_text())
    capsys.readouterr()
    command.main([*words, "--text-vectors", "lsa", "tf-idf"])
    after = json.loads(Path("comparison.json").read_text())
    assert after[0]["seconds"] is None
    assert after[1]["seconds"] > 0
    assert after[0]["queries"] == before[0]["queries"]


def test_another_data_set_is_searched_as_well(words, tmp_path, capsys):
    other = tiny.write_colours(tmp_path / "others")
    command.main([*words, "--text-vectors", "lsa", "--test-data", str(other)])
    rows = json.loads(Path("comparison.json").read_text())
    assert [(row["trained_on"], row["tested_on"]) for row in rows] == [
        ("colours", "colours"),
        ("colours", "others"),
    ]
    assert rows[0]["P@5"] == rows[1]["P@5"]  # the images are the same
    assert "| searched |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--text-vectors", "lsa", "lsa"], "text_vectors lists 'lsa' more than once"),
        (["--test-format", "coco"], "--test-format needs --test-data"),
        (["--text-vectors", "lsi"], "unknown sentence vectors 'lsi'; did you mean 'lsa'"),
        (["--text-vectors", "lsa", "--queries", "gone"], "query file gone cannot be read"),
        (["--text-vectors", "lsa", "--loss", "bce", "--margin", "1"], "--margin needs --loss ran"),
    ],
)
def test_mistakes_show_before_training(words, extra, message, monkeypatch):
    monkeypatch.setattr("captioner.training.compare.run_training", None)
    with pytest.raises(InputError, match=message):
        command.main([*words, *extra])


def test_without_gensim_the_others_are_compared(words, monkeypatch, capsys):
    seen = []

    class StoppedError(Exception):
        pass

    def stop(config):
        seen.append(config.task.text_vectors)
        raise StoppedError

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr("captioner.training.compare.run_training", stop)
    with pytest.raises(StoppedError):
        command.main(words)
    assert "word2vec, fastText, doc2vec and LDA need gensim and are left out; run pip" in (
        capsys.readouterr().out
    )
    assert seen == [("counts",)]
