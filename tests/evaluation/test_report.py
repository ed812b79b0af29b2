"""The report page has all results, works in a real browser, and executes none of its data."""

import base64
import io
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from PIL import Image

import evaluate
from captioner import __main__ as commands
from captioner.checkpoints.runs import read_log
from captioner.data.dataset import Example
from captioner.decoding.hypothesis import Hypothesis
from captioner.errors import InputError
from captioner.evaluation.report import Heading, write_report
from captioner.evaluation.split import ScoringSettings, score_captions
from captioner.metrics.bootstrap import intervals
from captioner.plots.curves import curves_svg
from captioner.plots.overlays import overlay
from captioner.text.vocabulary import Vocabulary
from tests.support import tiny
from tests.support.words import WORDS

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>&amp;'
OFFSET = -0.25
CHROMIUM = shutil.which("chromium")


def invent(directory, count, attention=True):
    """`count` images with hypotheses: "a red dog", and a longer caption for every other one."""
    draw, vocabulary = np.random.default_rng(0), Vocabulary(WORDS)
    directory.mkdir(exist_ok=True)
    examples, hypotheses, texts = [], {}, {}
    for i in range(count):
        pixels = draw.integers(0, 255, (3, 4, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC)
        image.save(directory / f"{i}.png")
        words = "a red dog".split() + "runs on the grass".split() * (i % 2)
        captions = ("a red dog runs", f"a {WORDS[i % 4]} dog on grass", HOSTILE)
        examples.append(Example(f"{i}{HOSTILE}", directory / f"{i}.png", captions, "val"))
        tokens = (*vocabulary.encode(words), vocabulary.END)
        maps = draw.dirichlet(np.full(12, 0.4), len(tokens)).reshape(-1, 3, 4)
        hypotheses[examples[-1].id] = Hypothesis(
            tokens, tuple(np.log(draw.uniform(0.1, 1, len(tokens)))), maps if attention else None
        )
        texts[examples[-1].id] = " ".join(words)
    references = {example.id: example.captions for example in examples}
    result = score_captions(texts, references, ScoringSettings(("bleu", "cider")))
    return replace(result, hypotheses=hypotheses), examples, vocabulary


def with_alternatives(result, vocabulary):
    """The same result with "dog" and the end as the alternatives of every word."""
    alternatives = (
        (vocabulary.encode(["dog"])[0], math.log(0.25)),
        (vocabulary.END, math.log(0.1)),
    )
    hypotheses = {
        key: replace(each, alternatives=(alternatives,) * len(each.tokens))
        for key, each in result.hypotheses.items()
    }
    return replace(result, hypotheses=hypotheses)


def write(path, result, examples, vocabulary, log=(), **more):
    """Write a report; returns the page, and the data of its script."""
    curves = curves_svg(log, "BLEU-4", 1)
    heading = Heading(f"of <b>{HOSTILE}", [f"fact {HOSTILE}"], intervals(result.scores, 20), curves)
    write_report(path, heading, result, examples, vocabulary, OFFSET, **more)
    page = path.read_text(encoding="utf-8")
    script = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return page, json.loads(script[1])


def test_the_page_has_captions_scores_maps_and_curves(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 6)
    path = tmp_path / "new" / "directory" / "report.html"
    page, data = write(path, result, examples, vocabulary, [{"epoch": 1, "loss": 2.5}])
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    assert data["scores"] == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr"]
    by_name = {image["name"]: image for image in data["images"]}
    assert by_name.keys() == set(result.texts)
    for i, example in enumerate(examples):
        image, hypothesis = by_name[example.id], result.hypotheses[example.id]
        words = result.texts[example.id].split()
        assert image["dimmed"] == [word in ("a", "on", "the") for word in words]
        assert image["words"] == words
        assert image["references"] == list(example.captions)
        np.testing.assert_allclose(
            image["log_probs"], hypothesis.log_probs[: len(words)], atol=1e-3
        )
        cells = np.frombuffer(base64.b64decode(image["maps"]), np.uint8)
        maps = hypothesis.attention[: len(words)]
        assert image["grid"] == [3, 4]
        assert cells.size == maps.size
        np.testing.assert_allclose(
            cells.reshape(maps.shape) / 255 * maps.max(), maps, atol=maps.max() / 500
        )
        np.testing.assert_allclose(
            image["scores"], [round(v[i], 2) for v in result.scores.per_image.values()]
        )
        with Image.open(io.BytesIO(base64.b64decode(image["jpeg"]))) as small:
            assert small.format == "JPEG"
            assert list(small.size) == image["size"] == [96, 72]
    for name, each in intervals(result.scores, 20).items():
        assert f'">{name}<td class="number">{each.value:.2f}' in page
        assert f"{each.low:.2f} to {each.high:.2f}" in page
    assert "<title>loss per word; last epoch: loss 2.5</title>" in page


def test_the_page_loads_nothing_and_escapes_all_data(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 2)
    log = [{"epoch": i, "loss": 1 / i, "BLEU-4": i, "distinct": HOSTILE} for i in (1, 2)]
    page, _ = write(tmp_path / "report.html", result, examples, vocabulary, log)
    assert page.count("<svg") == 2
    assert not re.search(r"https?:|@import|url\(|<link|innerHTML", page)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "<b>&lt;" not in page
    assert "&lt;/script&gt;" in page


def test_words_have_alternatives_if_the_hypotheses_do(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 2)
    _, data = write(tmp_path / "report.html", result, examples, vocabulary)
    assert all("word_alternatives" not in image for image in data["images"])
    result = with_alternatives(result, vocabulary)
    _, data = write(tmp_path / "report.html", result, examples, vocabulary)
    for image in data["images"]:
        alternatives = [["dog", round(math.log(0.25), 3)], ["", round(math.log(0.1), 3)]]
        assert image["word_alternatives"] == [alternatives] * len(image["words"])


def test_a_model_without_attention_has_no_maps(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 2, attention=False)
    _, data = write(tmp_path / "report.html", result, examples, vocabulary)
    assert all("maps" not in image for image in data["images"])


def test_too_many_images_are_reduced_to_best_worst_and_a_sample(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 30)
    _, data = write(tmp_path / "report.html", result, examples, vocabulary, max_images=8)
    found = [image["scores"][-1] for image in data["images"]]
    every = sorted(round(value, 2) for value in result.scores.per_image["CIDEr"])
    assert len({image["name"] for image in data["images"]}) == 8
    assert found[:2] == every[:2]
    assert found[-2:] == every[-2:]


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    result, examples, vocabulary = invent(tmp_path / "images", 2)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file/report\.html cannot be written: .* exists; choose"):
        write(tmp_path / "file" / "report.html", result, examples, vocabulary)


def test_a_log_with_a_truncated_row_is_read(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n[3]\n{"epo')
    assert read_log(tmp_path / "log.jsonl") == [{"epoch": 1}, {"epoch": 2}]
    assert read_log(tmp_path / "gone.jsonl") == []


def test_evaluate_writes_a_report(tmp_path_factory, tmp_path, monkeypatch, capsys):
    run = tiny.run(tmp_path_factory, attention=True)
    monkeypatch.chdir(tmp_path)
    options = "--workers 0 --metrics bleu,cider --output out --report page --beam-size 2".split()
    evaluate.main(["--checkpoint", str(run), *options])
    assert capsys.readouterr().out.splitlines()[-1] == "report: page/report.html"
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "colours, val split, 7 images" in page
    assert "decoding: method beam, beam_size 2, num_captions 1, max_length 30" in page
    assert "min_length 1, length_penalty 0.5<" in page
    assert ", cross entropy " in page
    assert "<title>validation CIDEr; last epoch: CIDEr " in page
    assert "|tokens:ptb-coco|" in page


def test_the_command_writes_the_same_page_as_evaluate(
    tmp_path_factory, tmp_path, monkeypatch, capsys
):
    """It goes where the scores are."""
    run = tmp_path / "checkpoints" / "mine"
    shutil.copytree(tiny.run(tmp_path_factory, attention=True), run)
    monkeypatch.chdir(tmp_path)
    options = ["--split", "test", "--metrics", "bleu", "--device", "cpu"]
    evaluate.main(["--checkpoint", "checkpoints/mine", *options, "--report", "page"])
    evaluated = capsys.readouterr().out.splitlines()
    scores = (run / "evaluation-test" / "scores.json").read_bytes()
    shutil.rmtree(run / "evaluation-test")
    commands.main(["report", "checkpoints/mine", *options])
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == evaluated[:-1]
    assert printed[-1] == f"report: {run / 'evaluation-test' / 'report.html'}"
    names = sorted(path.name for path in (run / "evaluation-test").iterdir())
    assert names == ["captions.json", "report.html", "scores.json"]
    assert (run / "evaluation-test" / "scores.json").read_bytes() == scores
    page = (run / "evaluation-test" / "report.html").read_bytes()
    assert page == (tmp_path / "page" / "report.html").read_bytes()
    commands.main(["report", "checkpoints/mine", *options, "--output", "out"])
    assert (tmp_path / "out" / "report.html").read_bytes() == page
    with pytest.raises(
        InputError, match="several checkpoints have no common run directory; pass --output"
    ):
        commands.main(["report", "checkpoints/mine", "checkpoints/mine"])


# ---- in a browser -------------------------------------------------------------------------------

TRY = """
addEventListener("load", () => {
  const found = {}, cards = () => [...document.querySelectorAll("article")];
  const set = values => {
    for (const [name, value] of Object.entries(values)) form[name].value = value;
    form.dispatchEvent(new Event("input"));
    return [form.querySelector("output").textContent, cards().length];
  };
  found.title = document.title;
  found.markup = document.querySelectorAll("article script, article img[onerror], h1 b").length;
  found.name = cards()[0].querySelector(".name").textContent;
  const values = () => cards().map(card => +card.querySelectorAll(".scores b")[4].textContent);
  found.start = [form.querySelector("output").textContent, cards().length];
  found.best = values();
  showMore();
  found.after = cards().length;
  set({order: "worst"});
  found.worst = values();
  found.runs = set({word: "Runs"});
  found.missed = set({word: "runs", where: "missed"});
  found.low = set({word: "", low: 1e6});
  set({low: "", order: "best"});
  const words = [...cards()[0].querySelectorAll(".word")];
  found.stops = words.map(word => word.tabIndex);
  found.dim = words.map(word => word.classList.contains("dim"));
  const image = cards()[0].querySelector("img");
  image.decode().then(() => {
    words[0].focus();
    words[0].dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    found.focused = document.activeElement.textContent;
    found.status = cards()[0].querySelector(".status").textContent;
    const canvas = cards()[0].querySelector("canvas");
    found.shown = canvas.style.visibility;
    found.map = canvas.toDataURL();
    words[1].blur();
    found.hidden = canvas.style.visibility;
    words[2].dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
    found.pointed = canvas.style.visibility;
    document.body.dataset.found = JSON.stringify(found);
  });
});
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What a script finds on a page of 60 images in a browser, the page's data, the result."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    here = tmp_path_factory.mktemp("browser")
    result, examples, vocabulary = invent(here / "images", 60)
    result = with_alternatives(result, vocabulary)
    page, data = write(here / "report.html", result, examples, vocabulary)
    scripted = page.replace("</body>", f"<script>{TRY}</script></body>")
    (here / "scripted.html").write_text(scripted, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={here / 'profile'}"]
    flags += ["--virtual-time-budget=3000", "--dump-dom"]
    address = (here / "scripted.html").as_uri()
    dom = subprocess.run(
        [CHROMIUM, *flags, address], capture_output=True, text=True, timeout=120
    ).stdout
    recorded = re.search(r'data-found="([^"]*)"', dom)
    assert recorded, dom[-2000:]
    return json.loads(unescape(recorded[1])), data, result


@pytest.mark.browser
def test_no_text_becomes_markup(seen):
    found, _, _ = seen
    assert found["title"] == f"of <b>{HOSTILE}"
    assert found["markup"] == 0
    assert found["name"].endswith(HOSTILE)


@pytest.mark.browser
def test_sorting_filters_and_lazy_loading(seen):
    found, data, _ = seen
    scores = sorted(image["scores"][4] for image in data["images"])
    assert found["start"] == ["60 of 60 images", 48]
    assert found["after"] == 60
    assert found["best"] == pytest.approx(scores[::-1][:48], abs=0.06)
    assert found["worst"] == pytest.approx(scores[:48], abs=0.06)
    assert found["runs"] == ["30 of 60 images", 30]  # in every other caption, in all references
    assert found["missed"] == ["30 of 60 images", 30]
    assert found["low"] == ["0 of 60 images", 0]


@pytest.mark.browser
def test_a_word_shows_the_same_map_as_the_overlay(seen):
    found, data, result = seen
    assert found["stops"][:3] == [0, -1, -1]
    best = max(data["images"], key=lambda image: image["scores"][4])
    assert found["dim"] == best["dimmed"]
    assert found["focused"] == best["words"][1]
    assert found["status"].startswith(best["words"][1])
    assert " %" in found["status"]
    assert found["status"].endswith("alternatives: dog  25 % · (end)  10 %")
    assert (found["shown"], found["hidden"], found["pointed"]) == ("visible", "hidden", "visible")
    canvas = Image.open(io.BytesIO(base64.b64decode(found["map"].partition(",")[2])))
    attention = result.hypotheses[best["name"]].attention[: len(best["words"])]
    small = Image.open(io.BytesIO(base64.b64decode(best["jpeg"])))
    wanted = overlay(small, attention[1], vmax=float(attention.max()), offset=OFFSET)
    difference = abs(np.asarray(canvas.convert("RGB")).astype(int) - np.asarray(wanted).astype(int))
    assert difference.mean() < 1.5
    assert difference.max() < 16
