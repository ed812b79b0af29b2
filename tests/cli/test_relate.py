"""`captioner relate`: its output as text and as JSON, supported words, and errors."""

import io
import json
import sys

import pytest

from captioner import RelationClassifier
from captioner.__main__ import main
from captioner.errors import InputError
from tests.support import relation, spatial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return relation.run(tmp_path_factory)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return relation.data(tmp_path_factory) / "val-0.png"


def call(capsys, *words):
    capsys.readouterr()
    main(["relate", *map(str, words)])
    return capsys.readouterr().out


def test_labels_as_text(run, image, capsys):
    text = "It is red. One sees a zebra here."
    lines = call(capsys, image, text, "--checkpoint", run).splitlines()
    found = RelationClassifier.from_pretrained(run).relate(image, text)
    assert [line.split()[:2] for line in lines[:2]] == [
        [name, f"{found[name].value:g}"] for name in ("cmi", "sc")
    ]
    expected = round(found["sc"].expected, 2) + 0.0  # not "-0.00"
    assert f"(expected {expected:.2f})  -1: {found['sc'].probabilities[-1]:.2f}" in lines[1]
    assert lines[2:] == ["unknown words: a, zebra"]


def test_labels_as_json_and_a_text_on_stdin(run, image, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("It is red.\nIt is blue."))
    content = json.loads(call(capsys, image, "-", "--checkpoint", run, "--json"))
    found = RelationClassifier.from_pretrained(run).relate(image, "It is red. It is blue.")
    assert content["labels"]["cmi"]["value"] == found["cmi"].value
    assert list(content["labels"]["cmi"]["probabilities"]) == ["0", "0.5", "1"]
    assert "words" not in content


def test_words_that_the_image_supports(run, capsys, tmp_path_factory):
    picture = spatial.data(tmp_path_factory) / "val" / "100-red-green.png"
    words = [picture, "It is red, not blue.", "--checkpoint", run]
    words += ["--spatial", spatial.run(tmp_path_factory)]
    lines = call(capsys, *words).splitlines()
    marks = {line.split("\t")[0]: line.split("\t")[2] for line in lines if "\t" in line}
    assert marks == {"red": "supported", "blue": "not supported"}
    content = json.loads(call(capsys, *words, "--json"))
    assert content["words"]["red"] > content["words"]["blue"]
    everything = call(capsys, *words, "--threshold", "0")
    assert "not supported" not in everything


def test_errors(run, image):
    words = ["relate", str(image), "red", "--checkpoint", str(run), "--threshold"]
    with pytest.raises(InputError, match=r"--threshold must be from 0 to 1, got 2\.0"):
        main([*words, "2"])
    with pytest.raises(InputError, match="--threshold has no effect without --spatial; pass"):
        main([*words, "0.3"])
    with pytest.raises(InputError, match="--threshold has no effect with --json; omit one of"):
        main([*words, "0.3", "--spatial", str(run), "--json"])
    with pytest.raises(InputError, match="a text must contain at least one known word, got 'x'"):
        main(["relate", str(image), "x", "--checkpoint", str(run)])
