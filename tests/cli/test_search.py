"""`captioner search`: text, JSON and HTML output, the index it finds, and its errors."""

import json
import re
import shutil
from pathlib import Path

import pytest

from captioner import Index, Linker
from captioner import __main__ as commands
from captioner.errors import InputError
from tests.support import linking, tiny


@pytest.fixture
def run(tmp_path_factory):
    return linking.run(tmp_path_factory)


@pytest.fixture
def hits(tmp_path, tmp_path_factory, monkeypatch, run):
    """The hits for "red - blue" in photos.index of the working directory, from Python."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.data(tmp_path_factory) / "val", "photos")
    options = ["--cache", "cache", "--workers", "0", "--device", "cpu"]
    words = ["index", "photos", "--checkpoint", str(run), "--output", "photos.index", *options]
    commands.main(words)
    return Index.open("photos.index", Linker.from_pretrained(run, "cpu")).search("red - blue")


def search(*words):
    commands.main(["search", "--device", "cpu", *map(str, words)])


def relative(path):
    return str(Path(path).relative_to(Path.cwd()))


def test_text(hits, capsys):
    capsys.readouterr()
    search("photos.index", "red -  1*blue")
    out, err = capsys.readouterr()
    assert err == ""
    lines = [f"{score:.3f}\t{relative(path)}" for path, score in hits]
    assert out.splitlines() == ["query: red - blue", *lines]


def test_json_and_the_last_index(hits, capsys):
    capsys.readouterr()
    search("red - blue", "--json", "--top", 2)
    out, err = capsys.readouterr()
    assert err == "index: photos.index, the last one written in this directory\n"
    assert json.loads(out) == {
        "query": "red - blue",
        "index": "photos.index",
        "hits": [{"image": relative(p), "score": round(s, 4)} for p, s in hits[:2]],
    }


def test_a_page(hits, capsys):
    Path(hits[1].path).unlink()
    search("photos.index", "red - blue", "--html", "pages/a.html", "--top", 3)
    assert "page: pages/a.html" in capsys.readouterr().err
    page = Path("pages/a.html").read_text(encoding="utf-8")
    assert "<h1>red - blue</h1>" in page
    assert "The best 3 of 7 images in photos.index" in page
    assert page.count('<img src="data:image/jpeg;base64,') == 2
    assert page.count("the image cannot be read") == 1
    shown = re.findall(r'class="name">(\d)\. ([^<]*)<', page)
    assert shown == [(str(i), relative(path)) for i, (path, _) in enumerate(hits[:3], 1)]
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_captions_of_an_image(tmp_path, tmp_path_factory, monkeypatch, run, capsys):
    """Captioning by retrieval: the images of the colours are named by their captions."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.data(tmp_path_factory) / "val", "photos")
    commands.main(["index", "--texts", "--checkpoint", str(run), "--output", "captions.index"])
    index = Index.open("captions.index", Linker.from_pretrained(run, "cpu"))
    photo = sorted(Path("photos").iterdir())[0]
    hits = index.search(f"image:{photo}", top=2)
    capsys.readouterr()
    search("captions.index", f"image:{photo}", "--top", 2, "--html", "a.html")
    lines = [f"{hit.score:.3f}\t{hit.text}" for hit in hits]
    assert capsys.readouterr().out.splitlines() == [f"query: image:{photo}", *lines]
    page = Path("a.html").read_text(encoding="utf-8")
    assert f"The best 2 of {len(index)} texts in captions.index, with their scores." in page
    assert page.count("<img ") == 1  # of the query
    assert re.findall(r'class="name">([^<]*)<', page) == [hit.text for hit in hits]
    search("captions.index", "red", "--json", "--top", 1)
    found = json.loads(capsys.readouterr().out)["hits"]
    (best,) = index.search("red", top=1)
    assert found == [{"text": best.text, "score": round(best.score, 4)}]


def test_neighbours_of_an_image(hits, capsys):
    capsys.readouterr()
    search("photos.index", f"image:{relative(hits[3].path)}", "--top", 1, "--html", "a.html")
    assert relative(hits[3].path) in capsys.readouterr().out.splitlines()[1]
    page = Path("a.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 2  # of the query and the hit
    assert "<figcaption>" in page


@pytest.mark.usefixtures("hits")
def test_queries_that_begin_with_a_minus(capsys):
    search("--top", 1, "photos.index", "--", "-red")
    search("--top", 1, "--", "-red")
    search("photos.index", "- red", "--top", 1)
    assert capsys.readouterr().out.count("query: - red\n") == 3


def test_a_moved_checkpoint(hits, run, capsys):
    manifest = json.loads(Path("photos.index/manifest.json").read_text())
    Path("photos.index/manifest.json").write_text(json.dumps({**manifest, "checkpoint": "/gone"}))
    with pytest.raises(InputError, match=r"^/gone, the checkpoint that .*, does not exist"):
        search("photos.index", "red")
    search("photos.index", "red - blue", "--checkpoint", run, "--top", 1)
    assert relative(hits[0].path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos.index", ""], "^the query is empty"),
        (["photos.index", "red +"], "^query 'red \\+' has nothing to add or subtract after a \\+"),
        (["photos.index", "red", "--top", 0], "^--top must be at least 1, got 0$"),
        (
            ["photos.index", "red", "-", "blue"],
            "^expected an index and a query, got 4 arguments; put",
        ),
        (
            ["photos.index", "red", "--cache", "c"],
            "^--cache has no effect without --rerank; omit it$",
        ),
        (
            ["photos.index"],
            "^the query is missing; pass it after the index photos.index, or a painting",
        ),
        (["photos", "red"], "^photos is not an index; write one with captioner index$"),
        (["photos.index", "rde"], r"'rde' \(similar: red\)"),
    ],
)
@pytest.mark.usefixtures("hits")
def test_mistakes(words, message):
    with pytest.raises(InputError, match=message):
        search(*words)


def test_no_index(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^no index found in the working directory; pass one, or"):
        search("red")
