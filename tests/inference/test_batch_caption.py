"""`captioner caption`: output formats, errors, shards, heatmaps, resuming after a kill."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioner import Captioner
from captioner import __main__ as commands
from captioner.console import progress_bar
from captioner.data.readers import load_data
from captioner.data.storage import web
from captioner.errors import InputError
from captioner.inference import batch_caption
from tests.support import tiny
from tests.support.loopback_files import running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


@pytest.fixture
def many(tmp_path, images, monkeypatch):
    """A function that creates a directory `many` of `count` images, those in `bad` broken."""
    monkeypatch.chdir(tmp_path)

    def make(count, bad=()):
        Path("many").mkdir()
        for i in range(count):
            path = Path("many", f"{i:04}.png")
            if i in bad:
                path.write_bytes(b"no image")
            else:
                path.symlink_to(images[i % len(images)])
        return sorted(map(str, Path("many").iterdir()))

    return make


def call(run, *words):
    commands.main(["caption", *map(str, words), "--checkpoint", str(run), "--device", "cpu"])


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_all_formats_contain_the_same_captions(run, many, capsys):
    paths, output = many(3), {}
    for form in ("text", "json", "jsonl"):
        call(run, "many", "--format", form, "--num-captions", 2)
        output[form], err = capsys.readouterr()
        assert err == ""
    records = json.loads(output["json"])
    assert [json.loads(line) for line in output["jsonl"].splitlines()] == records
    assert [line.split("\t") for line in output["text"].splitlines()] == [
        [each["image"], one["caption"]] for each in records for one in (each, *each["alternatives"])
    ]
    captions = Captioner.from_pretrained(run, "cpu").caption(paths, num_captions=2)
    for caption, each in zip(captions, records, strict=True):
        assert each["image"] == caption.image
        for expected, one in zip(
            (caption, *caption.alternatives), (each, *each["alternatives"]), strict=True
        ):
            assert (one["caption"], tuple(one["words"])) == (expected.text, expected.words)
            assert one["log_probs"] == pytest.approx(expected.log_probs, abs=1e-4)
            assert one["score"] == pytest.approx(sum(one["log_probs"]), abs=1e-3)
    call(run, paths[0], "--format", "jsonl")
    one = json.loads(capsys.readouterr().out)
    assert one.keys() == {"image", "caption", "score", "words", "log_probs"}


def test_word_alternatives(run, many, capsys):
    (path,) = many(1)
    call(run, path, "--format", "json", "--word-alternatives", 2)
    (record,) = json.loads(capsys.readouterr().out)
    expected = Captioner.from_pretrained(run, "cpu").caption(path, word_alternatives=2)
    assert len(record["word_alternatives"]) == len(expected.word_alternatives) > 0
    for written, others in zip(
        record["word_alternatives"], expected.word_alternatives, strict=True
    ):
        assert [each["word"] for each in written] == [word for word, _ in others]
        log_probs = [log_prob for _, log_prob in others]
        assert [each["log_prob"] for each in written] == pytest.approx(log_probs, abs=1e-3)


def test_no_images_give_empty_output(run, monkeypatch, capsys):
    for form, expected in (("json", "[]\n"), ("jsonl", ""), ("text", "")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
        call(run, "-", "--format", form)
        assert capsys.readouterr().out == expected


@pytest.mark.slow
def test_one_broken_image_of_a_thousand(run, many, images, capsys):
    """Its error is in its place; the others get the captions of single images, in order."""
    paths = many(1000, bad=[517])
    with pytest.raises(
        InputError, match=r"^1 of 1,000 images could .*; see the errors in the output$"
    ):
        call(run, "many", "--format", "jsonl")
    out, err = capsys.readouterr()
    records = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [each["image"] for each in records] == paths
    bad = records.pop(517)
    assert bad.keys() == {"image", "error"}
    assert "not an image in any of" in bad["error"]
    captioner = Captioner.from_pretrained(run, "cpu")
    alone = {path.resolve(): captioner.caption(path) for path in images}
    for each in records:
        expected = alone[Path(each["image"]).resolve()]
        assert each["caption"] == expected.text
        assert each["score"] == pytest.approx(expected.score, abs=1e-3)


def test_errors_in_the_other_formats(run, many, capsys):
    paths = many(3, bad=[0, 1])
    with pytest.raises(InputError, match="2 of 3 images could not"):
        call(run, "many")
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == paths[2:]
    assert [line.split(":")[0] for line in err.splitlines()] == [f"'{p}'" for p in paths[:2]]
    with pytest.raises(InputError, match="2 of 3 images could not"):
        call(run, "many", "--format", "json")
    assert ["error" in each for each in json.loads(capsys.readouterr().out)] == [True, True, False]


def test_file_names_that_are_not_text(run, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"\xff\n.png")
    os.symlink(images[0], name)
    call(run, ".", "--format", "jsonl")
    assert json.loads(capsys.readouterr().out)["image"] == f"./{name}"
    call(run, ".")
    assert capsys.readouterr().out.startswith("./?\n.png\t")


def test_shards_cover_all_images(run, many, capsys):
    many(10)
    call(run, "many", "--output", "whole.jsonl")
    for i in (1, 2, 3):
        call(run, "many", "--output", f"{i}.jsonl", "--shard", f"{i}/3")
    parts = [lines(f"{i}.jsonl") for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [4, 3, 3]
    whole = [each["image"] for each in lines("whole.jsonl")]
    assert sorted(each["image"] for part in parts for each in part) == whole
    assert capsys.readouterr().out.splitlines()[0] == "captions: whole.jsonl"


@pytest.mark.slow
def test_a_killed_command_is_resumed(run, many):
    """Existing records remain, missing ones are added, none is duplicated."""
    paths = many(400, bad=[3, 399])
    words = ["caption", "many", "--checkpoint", str(run), "--output", "out.jsonl"]
    killed = subprocess.Popen(
        [sys.executable, "-m", "captioner", *words, "--batch-size", "1", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    while killed.poll() is None and not (
        Path("out.jsonl").exists() and Path("out.jsonl").read_bytes().count(b"\n") >= 5
    ):
        time.sleep(0.005)
    killed.kill()
    assert killed.wait() == -9, "it ended before it could be killed"
    before = Path("out.jsonl").read_bytes()
    with Path("out.jsonl").open("ab") as file:  # as if it had died in the middle of a line
        file.write(b'{"image": "many/')
    with pytest.raises(InputError, match=r"^2 of 400 images .*; see the errors in out.jsonl$"):
        call(run, "many", "--output", "out.jsonl")
    assert Path("out.jsonl").read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    records = lines("out.jsonl")
    assert [each["image"] for each in records] == paths
    assert [i for i, each in enumerate(records) if "error" in each] == [3, 399]


def test_images_with_records_are_not_captioned_again(run, many, monkeypatch, capsys):
    many(4, bad=[1])
    for _ in range(2):  # the second call reports the broken image again
        with pytest.raises(InputError, match="1 of 4 images could not"):
            call(run, "many", "--output", "out.jsonl")
        monkeypatch.setattr(Captioner, "from_pretrained", None)  # no model is loaded again
    assert len(lines("out.jsonl")) == 4
    assert capsys.readouterr().err == "images already in out.jsonl: 4\n"


def test_other_models_and_options_are_rejected(run, many, tmp_path_factory):
    many(2)
    call(run, "many", "--output", "out.jsonl")
    call(run / "best", "many", "--output", "out.jsonl", "--batch-size", 1)  # the same checkpoint
    with pytest.raises(InputError, match="different options: beam_size was 3 but is now 5; choose"):
        call(run, "many", "--output", "out.jsonl", "--beam-size", 5)
    with pytest.raises(
        InputError, match=r"different options: checkpoint was '.*' but is now '.*'; choose"
    ):
        call(tiny.run(tmp_path_factory, attention=False), "many", "--output", "out.jsonl")
    with pytest.raises(
        InputError, match=r"--output out\.jsonl writes JSONL, got --format text; omit"
    ):
        call(run, "many", "--output", "out.jsonl", "--format", "text")
    assert len(lines("out.jsonl")) == 2


def test_images_from_a_list_and_a_glob(run, many, monkeypatch, capsys):
    paths = many(5)
    listed = f"{paths[4]}\n{paths[1]}\n".encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(listed)))
    call(run, "-", "many/000[12]*", paths[4])
    printed = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert printed == [paths[4], paths[1], paths[2]]


def test_heatmaps_of_all_shards_have_distinct_names(run, many, images, capsys):
    many(2)
    Path("0001-2.png").symlink_to(images[0])
    Path("0001.png").symlink_to(images[0])
    for i in (1, 2):
        words = ["many", "0001.png", "0001-2.png", "--heatmap", "maps", "--heatmap-format", "npy"]
        call(run, *words, "--shard", f"{i}/2", "--format", "jsonl")
    assert len(capsys.readouterr().out.splitlines()) == 4  # and nothing else is printed
    names = sorted(path.name for path in Path("maps").glob("*.npy"))
    assert names == ["0000.npy", "0001-1.npy", "0001-2-.npy", "0001-2.npy"]


@pytest.mark.parametrize(
    ("words", "terminal", "shown"),
    [([], True, False), ([], False, True), (["--output", "out.jsonl"], True, True)],
)
def test_a_progress_bar_unless_captions_scroll_by(
    run, many, monkeypatch, capsys, words, terminal, shown
):
    many(2)
    bars = []
    monkeypatch.setattr(
        batch_caption,
        "progress_bar",
        lambda **options: bars.append(options) or progress_bar(**options),
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    call(run, "many", *words)
    assert [(each["shown"], each["total"]) for each in bars] == [(shown, 2)]
    assert capsys.readouterr().err == ""


def test_a_csv_file_can_be_read_as_a_data_set(run, many, images, capsys):
    many(4, bad=[2])
    with pytest.raises(InputError, match="1 of 4 images could not be captioned; see the errors ab"):
        call(run, "many", "--output", "captions.csv", "--num-captions", "2")
    printed = capsys.readouterr()
    assert "'many/0002.png': not an image" in printed.err
    assert printed.out == "captions: captions.csv\n"
    rows = list(csv.DictReader(Path("captions.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == [f"many/{i:04}.png" for i in (0, 0, 1, 1, 3, 3)]
    expected = Captioner.from_pretrained(run).caption(images[0], num_captions=2)
    texts = [expected.text, *(caption.text for caption in expected.alternatives)]
    assert [row["caption"] for row in rows[:2]] == texts
    assert float(rows[0]["score"]) == pytest.approx(expected.score, abs=1e-3)
    for path in Path("many").iterdir():  # data sets refuse links to files elsewhere
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert len(load_data(Path("captions.csv"), None, Path(), "stop").examples) == 3


@pytest.mark.parametrize("name", ["captions", "captions.txt", "captions.json", "captions.xlsx"])
def test_an_output_with_an_unknown_ending_is_refused(run, many, name):
    many(1)
    with pytest.raises(InputError, match=r"--output must end in \.jsonl or \.ndjson or \.csv, got"):
        call(run, "many", "--output", name)
    assert not Path(name).exists()


def test_several_checkpoints_after_one_flag(run, images, tmp_path_factory, capsys):
    other = tiny.run(tmp_path_factory, attention=False)
    expected = Captioner.from_pretrained([run, other]).caption(images[0]).text
    both = ["--checkpoint", str(run), str(other)]
    for words in (
        [str(images[0]), *both],
        [*both, str(images[0])],
        ["--checkpoint", str(run), str(images[0]), "--checkpoint", str(other)],
    ):
        commands.main(["caption", *words, "--device", "cpu"])
        assert capsys.readouterr().out == f"{images[0]}\t{expected}\n"
    with pytest.raises(InputError, match="checkpoint gone does not exist"):
        commands.main(["caption", str(images[0]), "--checkpoint", str(run), "gone"])
    with pytest.raises(InputError, match="1 of 1 images could not be captioned"):
        commands.main(["caption", "--checkpoint", str(run), "gone.png"])
    assert "'gone.png': no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        commands.main(["caption", *both])
    assert "pass at least one IMAGE" in capsys.readouterr().err


def test_a_missing_image_and_a_missing_checkpoint_are_both_named(many):
    many(1)
    with pytest.raises(InputError, match=r"checkpoints/gone does not exist.*'gone\.png' does not"):
        call("checkpoints/gone", "many", "gone.png")
    with pytest.raises(InputError, match=r"does not exist; check the path$"):
        call("checkpoints/gone", "many")


def test_a_url_is_captioned_if_urls_are_allowed(run, images, capsys, monkeypatch):
    with running() as server:
        server.files["a.png"] = images[0].read_bytes()
        url = f"{server.url}/a.png?size=1"
        server.files["a.png?size=1"] = server.files["a.png"]
        with pytest.raises(InputError, match="1 of 1 images could not be captioned"):
            call(run, url)
        assert "only if URLs are allowed; pass allow_urls=True (--allow-urls)" in (
            capsys.readouterr().err
        )
        with pytest.raises(InputError, match="1 of 1 images could not be captioned"):
            call(run, url, "--allow-urls")
        assert "an address that is not public" in capsys.readouterr().err
        monkeypatch.setattr(web, "is_public", lambda _: True)
        call(run, url, "--allow-urls")
    assert capsys.readouterr().out.startswith(f"{url}\t")


def test_details_and_silence(run, many, capsys):
    many(1)
    call(run, "many", "--verbose")
    shown = capsys.readouterr()
    assert (
        f"DEBUG captioner.checkpoints.checkpoint: checkpoint {run / 'best'}: task cap" in shown.err
    )
    assert "DEBUG captioner.captioner: 1 checkpoint(s) on cpu in float32" in shown.err
    call(run, "many", "--quiet", "--output", "a.csv")
    assert capsys.readouterr() == ("", "")
    assert Path("a.csv").exists()
