"""What is told of a data set, against counting by hand; every format as JSONL and back."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import __main__ as commands
from captioner.data.inspection import describe_data, percentile
from captioner.data.inspection import write_jsonl as convert
from captioner.data.readers import read_captions
from captioner.errors import InputError
from tests.support.layouts import (
    SOUND,
    numbered_images,
    write_jsonl,
    write_kaggle,
    write_webdataset,
)

CAPTIONS = numbered_images(30) | {
    "a.jpg": ['Two dogs, "running"', "ein Hund läuft\u2028schnell", ""]
}


@pytest.mark.parametrize("layout", SOUND)
def test_every_format_as_jsonl_and_back(tmp_path, layout):
    SOUND[layout](tmp_path / "data", CAPTIONS)
    data = read_captions(tmp_path / "data")
    assert data.format == layout
    target = convert(data, tmp_path / "new" / "out")
    for path in (target, target.parent):
        again = read_captions(path)
        assert again.format == "jsonl" and not again.problems and not again.note
        assert [(e.id, e.captions, e.split) for e in again.examples] == [
            (e.id, e.captions, e.split) for e in data.examples
        ]
        for one, other in zip(again.examples, data.examples, strict=True):
            assert one.path.resolve() == other.path.resolve()


def test_images_stay_where_they_are(tmp_path):
    data = read_captions(write_webdataset(tmp_path / "data", CAPTIONS))
    convert(data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "captions.jsonl",
        "images",
    ]
    assert (tmp_path / "out" / "images").readlink() == tmp_path / "data"
    row = json.loads((tmp_path / "out" / "captions.jsonl").read_text().splitlines()[0])
    assert row["image"] == "images/00000.tar/00.jpg"


@pytest.mark.parametrize("there", ["captions.jsonl", "images"])
def test_nothing_is_written_over(tmp_path, there):
    data = read_captions(write_jsonl(tmp_path / "data", CAPTIONS))
    (tmp_path / there).symlink_to("nowhere")
    with pytest.raises(InputError, match=f"{there} is there already; convert to another directory"):
        convert(data, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", there])


def test_what_is_told(tmp_path):
    rows = [
        {"image": "a.jpg", "captions": ["A dog runs .", "a dog", ""], "split": "train"},
        {"image": "b.jpg", "caption": "a a a a a a cat", "split": "train"},
        {"image": "c.jpg", "caption": "something else entirely", "split": "val"},
        {"image": "gone.jpg", "caption": "a dog", "split": "val"},
    ]
    write_jsonl(tmp_path, {"a.jpg": [], "b.jpg": [], "c.jpg": []})
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert describe_data(read_captions(tmp_path, on_error="skip")).splitlines() == [
        f"{tmp_path}: jsonl (captions.jsonl, or train.jsonl, val.jsonl ...)",
        "              images  captions",
        "train              2         4",
        "val                1         1",
        "words per caption: mean 4.0; 5 % 2, 50 % 3, 95 % 7; longest 7",
        "captions without a word: 1",
        "--min-count 1         4 words, 100.00 % of all there",  # a 8, dog 2, runs, cat
        "--min-count 2         2 words,  83.33 % of all there",
        "--min-count 5         1 words,  66.67 % of all there",
        "--min-count 10        0 words,   0.00 % of all there",
        "problems: 1",
        f"  {tmp_path}/captions.jsonl, line 4: the image {tmp_path}/gone.jpg is missing; "
        "add the file, or remove what names it",
    ]


def test_what_is_told_of_data_without_training(tmp_path):
    write_jsonl(tmp_path, {"a.jpg": ["a dog"]}, "val.jsonl")
    told = describe_data(read_captions(tmp_path))
    assert "words per caption: mean 2.0;" in told and told.endswith("problems: none")


def test_drawn_splits_are_told(tmp_path):
    told = describe_data(read_captions(write_kaggle(tmp_path, CAPTIONS)))
    assert "\nsplit: no splits there: 80/10/10 by seed 0\n" in told


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 100))
def test_percentiles_are_the_least_values_that_so_many_do_not_exceed(values, share):
    enough = [v for v in values if 100 * sum(other <= v for other in values) >= share * len(values)]
    assert percentile(sorted(values), share) == min(enough)


def test_the_command(tmp_path, capsys):
    write_kaggle(tmp_path / "data", CAPTIONS)
    (tmp_path / "data" / "Images" / "03.jpg").unlink()
    commands.main(["data", str(tmp_path / "data")])
    told = capsys.readouterr().out
    assert re.search(r"problems: 1\n  .*captions.txt, line 8: the image .*03.jpg is missing", told)
    out = tmp_path / "out"
    commands.main(
        ["data", str(tmp_path / "data"), "--format", "kaggle", "--convert", "jsonl", str(out)]
    )
    assert capsys.readouterr().out == f"{told}written: {out / 'captions.jsonl'}\n"
    assert len(read_captions(out).examples) == len(CAPTIONS) - 1
    with pytest.raises(InputError, match="--convert must be followed by jsonl and a directory, got 'csv'"):
        commands.main(["data", str(tmp_path / "data"), "--convert", "csv", str(out)])
