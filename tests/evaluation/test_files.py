"""evaluate.py with captions from files: scores, comparisons and intervals."""

import json
import re
import shutil
from pathlib import Path

import pytest

import evaluate
from captioner.errors import InputError
from captioner.metrics.captions import corpus_scores
from tests.support import tiny

CAPTIONS = {1: "a dog runs", 2: "two men ride bikes", 3: "a cat on a bed"}
OTHERS = {1: "a cat runs", 2: "two men", 3: "a cat on a bed"}
REFERENCES = {
    1: ["a dog is running", "a dog runs fast"],
    2: ["two men ride their bikes", "people ride bikes"],
    3: ["the cat sleeps on a bed", "a cat on a white bed"],
}
WITHOUT_JAVA = ["--metrics", "bleu, rouge-l,CIDEr"]


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory with files of captions and references."""
    monkeypatch.chdir(tmp_path)
    write("ours.json", CAPTIONS)
    write("theirs.json", OTHERS)
    annotations = [{"image_id": i, "caption": c} for i, cs in REFERENCES.items() for c in cs]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in REFERENCES]
    content = {"images": images, "annotations": annotations}
    Path("references.json").write_text(json.dumps(content))
    return tmp_path


def write(name, captions):
    rows = [{"image_id": id, "caption": text} for id, text in captions.items()]
    Path(name).write_text(json.dumps(rows))


def call(*options):
    files = ["--predictions", "ours.json", "--references", "references.json"]
    evaluate.main([*files, *WITHOUT_JAVA, *options])


def test_captions_of_a_file_are_scored(work, capsys):
    before = sorted(work.iterdir())
    call()
    printed = capsys.readouterr().out.splitlines()
    expected = corpus_scores(CAPTIONS, REFERENCES)
    assert printed[0] == "ours.json against references.json, 3 images"
    assert printed[1] == "  ".join(f"{name} {value:.2f}" for name, value in expected.items())
    assert printed[2].startswith("4.00 words per caption")
    assert "novel" not in printed[2]
    assert printed[3].startswith("BLEU+ROUGE-L+CIDEr|tok")
    assert "|references:2|" in printed[3]
    assert len(printed) == 4
    assert sorted(work.iterdir()) == before
    call("--output", "new/directory")
    stored = json.loads(Path("new/directory/scores.json").read_text())
    assert {name: stored[name] for name in expected} == expected
    assert [row["image_id"] for row in stored["images"]] == [1, 2, 3]
    assert capsys.readouterr().out.splitlines()[-1] == "scores: new/directory"
    assert [path.name for path in Path("new/directory").iterdir()] == ["scores.json"]


@pytest.mark.usefixtures("work")
def test_csv_and_jsonl_give_the_same_scores(capsys):
    call()
    expected = capsys.readouterr().out.splitlines()[1:]
    rows = "".join(f"{id},{text}\n" for id, text in CAPTIONS.items())
    Path("ours.csv").write_text("image,caption\n" + rows)
    lines = [json.dumps({"id": str(i), "captions": c}) for i, c in REFERENCES.items()]
    Path("references.jsonl").write_text("\n".join(lines))
    files = ["--predictions", "ours.csv", "--references", "references.jsonl"]
    evaluate.main([*files, *WITHOUT_JAVA])
    assert capsys.readouterr().out.splitlines()[1:] == expected


@pytest.mark.usefixtures("work")
def test_missing_images_are_refused_unless_allowed(capsys):
    write("ours.json", {1: "a dog runs", 2: "two men ride bikes", 7: "a cat"})
    message = (
        r"^captions and references do not match: 1 image \(3\) without a caption; "
        r"1 image \(7\) not among the references; pass --allow-missing to score the rest$"
    )
    with pytest.raises(InputError, match=message):
        call()
    assert capsys.readouterr().out == ""
    call("--allow-missing", "--compare", "theirs.json")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(", 2 images")
    assert printed[1].startswith("note: 2 images are scored; 1 image (3) without a caption")
    two = {id: CAPTIONS[id] for id in (1, 2)}
    bleu = corpus_scores(two, {id: REFERENCES[id] for id in two})["BLEU-1"]
    assert printed[2].startswith(f"BLEU-1 {bleu:.2f}")


@pytest.mark.usefixtures("work")
def test_intervals_and_differences_are_printed_and_stored(capsys):
    call("--bootstrap", "50", "--compare", "theirs.json", "--output", "out")
    printed = capsys.readouterr().out.splitlines()
    stored = json.loads(Path("out/scores.json").read_text())
    ours, theirs = (corpus_scores(captions, REFERENCES) for captions in (CAPTIONS, OTHERS))
    assert printed[4] == "95 % confidence intervals from 50 bootstrap samples of the images:"
    assert printed[11] == (
        "difference from theirs.json, 95 % confidence intervals from 50 paired bootstrap samples:"
    )
    for line, name in enumerate(ours):
        interval, gain = stored["intervals"][name], stored["differences"][name]
        assert interval["value"] == ours[name]
        assert interval["low"] <= ours[name] <= interval["high"]
        assert gain["value"] == pytest.approx(ours[name] - theirs[name])
        numbers = (interval["value"], interval["low"], interval["high"])
        assert printed[5 + line] == "  {} {:.2f} ({:.2f} to {:.2f})".format(name, *numbers)
        numbers = (gain["value"], gain["low"], gain["high"])
        assert printed[12 + line] == "  {} {:+.2f} ({:+.2f} to {:+.2f})".format(name, *numbers)
    call("--compare", "theirs.json")
    assert "from 1000 paired bootstrap samples" in capsys.readouterr().out


@pytest.mark.usefixtures("work")
def test_novelty_is_relative_to_the_training_captions_of_a_file(capsys):
    write("training.json", {1: "A dog runs .", 5: "a red cat"})
    call("--training-captions", "training.json")
    assert capsys.readouterr().out.splitlines()[2].endswith(", 66.7 % novel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test"], "--split has no effect with --predictions; omit it"),
        (["--report", "page"], "--report has no effect with --predictions"),
        (["--beam-size", "3"], "--beam-size has no effect with --predictions"),
        (["--metrics", "bleu,spice"], "unknown metric 'spice'; choose from bleu, meteor, rouge-l,"),
        (["--bootstrap", "-1"], "bootstrap must be at least 0, got -1"),
        (["--compare", "gone.json"], "gone.json cannot be read"),
        (
            ["--output", "ours.json"],
            "--output: directory ours.json cannot be created: File exists; choose another",
        ),
    ],
)
@pytest.mark.usefixtures("work")
def test_options_that_cannot_work_are_refused(capsys, options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(*options)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("work")
def test_meteor_is_left_out_without_java_unless_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"^METEOR needs Java, but java is not on the PATH"):
        call("--metrics", "meteor")
    evaluate.main(["--predictions", "ours.json", "--references", "references.json"])
    printed = capsys.readouterr().out.splitlines()
    assert "METEOR" not in printed[1] + printed[3]
    assert printed[4].startswith("note: scored without METEOR: METEOR needs Java, but java is not")


def test_a_failure_in_scoring_keeps_the_captions(tmp_path_factory, tmp_path, monkeypatch):
    """Scores of earlier captions are removed."""
    shutil.copytree(tiny.run(tmp_path_factory, attention=False), tmp_path / "run")
    directory = tmp_path / "run" / "evaluation-val"
    directory.mkdir()
    (directory / "scores.json").write_text("{}")
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{java.parent}:/usr/bin:/bin")
    message = rf"METEOR failed: .*; the captions are in {directory / 'captions.json'}$"
    with pytest.raises(InputError, match=message):
        evaluate.main(["--checkpoint", str(tmp_path / "run"), "--metrics", "meteor"])
    assert [path.name for path in directory.iterdir()] == ["captions.json"]
    captions = json.loads((directory / "captions.json").read_text())
    assert [row["image_id"] for row in captions] == list(range(100, 107))


def test_a_checkpoints_captions_are_compared_with_a_file(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    shutil.copytree(tiny.run(tmp_path_factory, attention=True), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    model = ["--checkpoint", "run", "--workers", "0", *WITHOUT_JAVA]
    evaluate.main([*model, "--method", "greedy", "--max-length", "2", "--output", "short"])
    evaluate.main([*model, "--compare", "short/captions.json"])
    printed = capsys.readouterr().out.splitlines()
    long, short = (
        json.loads(Path(directory, "scores.json").read_text())
        for directory in ("run/evaluation-val", "short")
    )
    gain = long["differences"]["BLEU-4"]
    assert gain["value"] == pytest.approx(long["BLEU-4"] - short["BLEU-4"])
    assert gain["low"] > 0
    assert long["novelty"] < short["novelty"] == 100
    assert (
        "difference from short/captions.json, "
        "95 % confidence intervals from 1000 paired bootstrap samples:"
    ) in printed
    with pytest.raises(InputError, match="--references has no effect without --predictions"):
        evaluate.main([*model, "--references", "short/captions.json"])
    with pytest.raises(
        InputError, match=r"captions.json has no caption for 3 images \(200, 201, 202\)"
    ):
        evaluate.main([*model, "--split", "test", "--compare", "short/captions.json"])


@pytest.mark.usefixtures("work")
def test_captions_without_spaces_are_scored_by_character(capsys):
    """Eleven of the twelve characters of the caption are in its references."""
    write("ours.json", dict.fromkeys(range(3), "一只棕色的狗在草地上跑步"))
    rows = [
        {"image_id": i, "captions": ["一只棕色的狗在草地上奔跑", "草地上有一只棕色的狗"]}
        for i in range(3)
    ]
    Path("references.json").write_text(json.dumps(rows))
    call()
    printed = capsys.readouterr().out
    assert "BLEU-1 0.00" in printed
    assert "\nnote: most captions are a single word; if their script" in printed
    call("--tokenizer", "characters")
    printed = capsys.readouterr().out
    assert f"BLEU-1 {1100 / 12:.2f}" in printed
    assert "|tokens:characters|" in printed
    assert "note" not in printed
    write("theirs.json", dict.fromkeys(range(3), "草地上有一只棕色的狗"))
    call("--tokenizer", "characters", "--compare", "theirs.json", "--bootstrap", "5")
    assert f"BLEU-1 {1100 / 12 - 100:.2f}" in capsys.readouterr().out.replace("  ", " ")


@pytest.mark.usefixtures("work")
def test_marked_references_are_counted(capsys):
    content = json.loads(Path("references.json").read_text())
    marked = [{"image_id": 1, "caption": "a dog runs", "is_rejected": True} for _ in range(2)]
    content["annotations"] += marked
    Path("references.json").write_text(json.dumps(content))
    call()
    printed = capsys.readouterr().out
    assert "\nnote: captions of references.json left out: 2 marked is_rejected\n" in printed
    assert "|references:2|" in printed
