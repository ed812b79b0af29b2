"""Reranker: scores by hand, in batches of any size, and the searches and splits it re-ranks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import captioner
import evaluate
from captioner import Captioner, Index, Linker, Reranker
from captioner import __main__ as commands
from captioner import pair_scorers as module
from captioner.data.images import Transform
from captioner.data.readers import read_captions
from captioner.decoding import teacher_forcing
from captioner.errors import InputError
from captioner.retrieval.reranking import evidence_for_texts
from captioner.tasks.linking.reranking import rerank_split
from tests.support import linking, tiny

TEXTS = [
    "red and nothing else",
    "blue",
    "white is all one sees here",
    "Blue!",
    "a red zebra",
    "",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def sample(tmp_path_factory):
    """All training images."""
    return [str(e.path) for e in read_captions(tiny.data(tmp_path_factory)).split("train")]


@pytest.fixture
def reranker(run, sample):
    return Reranker.from_pretrained(run, "cpu", weight=0.3, sample=sample)


@pytest.fixture
def images(tmp_path_factory):
    return [str(p) for p in sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))]


def all_pairs(images, texts):
    return np.array([(i, t) for i in range(len(images)) for t in range(len(texts))])


def scorer_of(reranker):
    (scorer,) = reranker.scorers
    return scorer


def log_prob(reranker, image, text):
    return scorer_of(reranker).captioner.score(image, text, allow_unknown=True)


def for_images(reranker, image, text):
    """What is added to the cosine of an image for a text."""
    return reranker.weights[0] * log_prob(reranker, image, text)


def for_texts(reranker, image, texts, sample):
    """What is added to the cosine of each text for an image, one pair at a time."""
    differences = []
    for text in texts:
        prior = np.mean([np.exp(log_prob(reranker, each, text)) for each in sample])
        differences.append(log_prob(reranker, image, text) - np.log(prior))
    limit = np.quantile(differences, 0.7)
    return [-reranker.weights[0] * np.log(np.exp(-d) + np.exp(-limit)) for d in differences]


def test_the_package_exports_it():
    assert captioner.Reranker is Reranker


def test_log_probabilities_by_hand(reranker, images):
    texts = TEXTS[:-1]  # Captioner.score refuses texts without words
    pairs = all_pairs(images, texts)
    found = scorer_of(reranker).score(images, texts, pairs)
    expected = [log_prob(reranker, images[i], texts[t]) for i, t in pairs]
    assert found == pytest.approx(expected, abs=1e-3)
    blue = found.reshape(len(images), -1)[:, [1, 3]]
    assert (blue[:, 0] == blue[:, 1]).all()  # the same words: equal, not only close


@pytest.mark.parametrize("count", [1, 3])
def test_log_priors_by_hand(reranker, sample, count):
    few = Reranker(scorer_of(reranker).captioner, sample=sample[:count])
    expected = [
        np.log(np.mean([np.exp(log_prob(reranker, image, text)) for image in sample[:count]]))
        for text in TEXTS[:-1]
    ]
    assert scorer_of(few).log_priors(TEXTS[:-1]) == pytest.approx(expected, abs=1e-3)


def test_a_uniform_image_replaces_a_missing_sample(tiny_model, vocabulary):
    mean = (0.2, 0.4, 0.6)
    captioner = Captioner(tiny_model(True), vocabulary, Transform(32, mean=mean))
    uniform = Image.new("RGB", (32, 32), tuple(round(255 * value) for value in mean))
    expected = captioner.score([uniform] * 2, ["dog", "a dog"], allow_unknown=True)
    found = scorer_of(Reranker(captioner)).log_priors(["dog", "a dog"])
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("at_once", "rows", "piece"), [(1, 1, 1), (2, 3, 2), (5, 256, 4)])
def test_batches_do_not_change_the_scores(reranker, images, monkeypatch, at_once, rows, piece):
    """Sharded equals unsharded, for pairs in any order, with images and texts that have none."""
    pairs = np.random.default_rng(0).permutation(all_pairs(images, TEXTS))[:29]
    scorer = scorer_of(reranker)
    expected = scorer.score(images, TEXTS, pairs)
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", at_once)
    monkeypatch.setattr(teacher_forcing, "ROWS", rows)
    monkeypatch.setattr(teacher_forcing, "PIECE", piece)
    assert scorer.score(images, TEXTS, pairs) == pytest.approx(expected, abs=1e-4)


def test_stored_features_are_used_again(tiny_model, vocabulary, images, tmp_path, monkeypatch):
    """They are in half precision; the encoder runs again for images in memory only."""
    captioner = Captioner(tiny_model(True), vocabulary, Transform(32))
    cosines = np.zeros(len(images))
    expected = Reranker(captioner).score_images("a dog", images, cosines)
    cached = Reranker(captioner, cache=tmp_path / "cache")
    assert cached.score_images("a dog", images, cosines) == pytest.approx(expected, abs=1e-3)
    monkeypatch.setattr(captioner.model.encoder, "forward", None)
    assert cached.score_images("a dog", images, cosines) == pytest.approx(expected, abs=1e-3)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        cached.score_images("a dog", [Image.open(path) for path in images], cosines)


def test_images_are_encoded_if_features_cannot_be_stored(tiny_model, vocabulary, images, tmp_path):
    captioner, cosines = (
        Captioner(tiny_model(True), vocabulary, Transform(32)),
        np.zeros(len(images)),
    )
    expected = Reranker(captioner).score_images("a dog", images, cosines)
    (tmp_path / "cache").write_text("a file")
    cached = Reranker(captioner, cache=tmp_path / "cache")
    assert cached.score_images("a dog", images, cosines) == pytest.approx(expected, abs=1e-5)


def test_a_missing_image_is_named(tiny_model, vocabulary, images, tmp_path):
    cached = Reranker(Captioner(tiny_model(True), vocabulary, Transform(32)), cache=tmp_path / "c")
    with pytest.raises(InputError, match=r"gone\.png"):
        cached.score_images("a dog", [*images, str(tmp_path / "gone.png")], [0.0] * 8)


def test_a_trained_encoder_stores_nothing(reranker, images, tmp_path):
    captioner = scorer_of(reranker).captioner
    cached = Reranker(captioner, weight=0.3, cache=tmp_path / "cache")
    expected = reranker.score_images("red", images, np.zeros(len(images)))
    found = cached.score_images("red", images, np.zeros(len(images)))
    assert found == pytest.approx(expected, abs=1e-5)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_invalid_weights(reranker, weight):
    with pytest.raises(InputError, match=f"^weight must be finite and at least 0, got {weight}$"):
        Reranker(scorer_of(reranker).captioner, weight=weight)


# ---- searches -----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, tmp_path_factory, monkeypatch, images):
    """Indexes of the val images and of TEXTS, in the working directory."""
    monkeypatch.chdir(tmp_path)
    run = linking.run(tmp_path_factory)
    Path("texts.txt").write_text("".join(f"{text}\n" for text in TEXTS[:4]))
    rest = ["--checkpoint", str(run), "--device", "cpu"]
    commands.main(["index", *images, "--output", "photos.index", "--cache", "cache", *rest])
    commands.main(["index", "--texts", "texts.txt", "--output", "texts.index", *rest])
    return Linker.from_pretrained(run, "cpu")


@pytest.mark.parametrize(("top", "rerank_top"), [(7, 50), (2, 3), (4, 1)])
def test_images_by_a_text(here, reranker, top, rerank_top):
    index, query = Index.open("photos.index", here), "blue and nothing else"
    before = index.search(query, max(top, rerank_top))
    expected = {path: cosine + for_images(reranker, path, query) for path, cosine in before}
    hits = index.search(query, top, reranker=reranker, rerank_top=rerank_top)
    check_hits(hits, expected, top)


def check_hits(hits, expected, top):
    """The hits must be the best of the expected scores, in order."""
    assert [hit.item for hit in hits] == sorted(expected, key=lambda item: -expected[item])[:top]
    scores = [expected[hit.item] for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-3)


def test_texts_by_an_image(here, reranker, images, sample):
    index, image = Index.open("texts.index", here), images[2]
    before = index.search(f"image:{image}")
    texts, cosines = zip(*before, strict=True)
    added = for_texts(reranker, image, texts, sample)
    expected = dict(zip(texts, np.add(cosines, added), strict=True))
    check_hits(index.search(f"image:{image}", reranker=reranker), expected, 10)


def test_no_weight_changes_nothing(here, reranker):
    index = Index.open("photos.index", here)
    hits = index.search("red", reranker=Reranker(scorer_of(reranker).captioner, weight=0))
    assert hits == index.search("red")


@pytest.mark.parametrize(
    ("name", "query", "message"),
    [
        ("photos", "image:{}", "of images needs a single phrase as the query, got image:"),
        (
            "photos",
            "red + blue",
            r"of images needs a single phrase as the query, got red \+ blue; change",
        ),
        ("photos", "- red", "of images needs a single phrase as the query, got - red; change"),
        ("texts", "red", "of texts needs a single image as the query, got red; change"),
        ("texts", "image:{} + red", "of texts needs a single image as the query, got image:"),
        ("texts", np.ones(3), "of texts needs a single image as the query, got a vector; change"),
        ("photos", "", "^the query is empty"),
    ],
)
def test_other_queries_are_refused(here, reranker, images, name, query, message):
    query = query.format(images[0]) if isinstance(query, str) else query
    with pytest.raises(InputError, match=message):
        Index.open(f"{name}.index", here).search(query, reranker=reranker)


def test_an_image_that_no_longer_exists(here, reranker, images):
    index = Index.open("photos.index", here)
    copy = shutil.copy(images[0], "copy.png")
    rest = ["--checkpoint", index.checkpoint, "--output", "copy.index", "--cache", "cache"]
    commands.main(["index", str(copy), *rest])
    Path(copy).unlink()
    with pytest.raises(InputError, match=r"copy\.png': no such file"):
        Index.open("copy.index", here).search("red", reranker=reranker)


def test_the_command(here, run, reranker, images, capsys):
    query = f"image:{images[1]}"
    hits = Index.open("texts.index", here).search(query, 2, reranker=reranker)
    capsys.readouterr()
    words = ["search", "texts.index", query, "--rerank", str(run), "--rerank-weight", "0.3"]
    commands.main([*words, "--top", "2", "--device", "cpu", "--html", "a.html"])
    lines = [f"{hit.score:.3f}\t{hit.text}" for hit in hits]
    assert capsys.readouterr().out.splitlines() == [f"query: {query}", *lines]
    assert f"with their scores, re-ranked by {run}." in Path("a.html").read_text("utf-8")
    with pytest.raises(InputError, match=r"^--rerank-weight needs --rerank$"):
        commands.main(["search", "texts.index", query, "--rerank-weight", "0.3"])


# ---- splits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [3, 50])
def test_a_split_is_ranked_before_and_after(
    tmp_path, tmp_path_factory, monkeypatch, run, reranker, sample, capsys, top
):
    """Against every query ranked by sorting; with more than one correct text per image."""
    monkeypatch.chdir(tmp_path)
    linking_run = linking.run(tmp_path_factory)
    flags = ["--rerank", str(run), "--rerank-top", str(top), "--rerank-weight", "0.3"]
    words = ["--checkpoint", str(linking_run), "--output", "scores", "--device", "cpu"]
    evaluate.main([*words, *flags, "--cache", "cache"])
    out = capsys.readouterr().out
    assert f"the best {top} of each query, re-ranked by {run}:" in out
    assert out.count("image to text: R@1") in (2, 4)  # also with equal texts as correct
    content = json.loads(Path("scores/scores.json").read_text())
    found = content["reranked"]
    assert (found["rerank"], found["rerank_top"], found["rerank_weight"]) == ([str(run)], top, 0.3)
    linker = Linker.from_pretrained(linking_run, "cpu")
    examples = read_captions(tiny.data(tmp_path_factory)).split("val")
    paths = [example.path for example in examples]
    pairs = [(i, text) for i, example in enumerate(examples) for text in example.captions]
    texts, owner = [text for _, text in pairs], np.array([i for i, _ in pairs])
    cosines = linker.similarity(paths, texts)
    texts_found, images_found = [], []
    for path, row in zip(paths, cosines, strict=True):
        order = np.argsort(-row)[:top]
        added = for_texts(reranker, path, [texts[t] for t in order], sample)
        texts_found.append(owner[order[np.argmax(row[order] + added)]])
    for text, column in zip(texts, cosines.T, strict=True):
        order = np.argsort(-column)[:top]
        added = [for_images(reranker, paths[i], text) for i in order]
        images_found.append(order[np.argmax(column[order] + added)])
    assert found["i2t_R@1"] == pytest.approx(100 * np.mean(texts_found == np.arange(len(paths))))
    assert found["t2i_R@1"] == pytest.approx(100 * np.mean(images_found == owner))


@pytest.mark.parametrize("top", [2, 50])
def test_ranks_of_both_directions_by_sorting(tiny_model, vocabulary, tmp_path_factory, top):
    """With a random captioner and random cosines, so that re-ranking changes nearly every query."""
    captioner = Captioner(tiny_model(True), vocabulary, Transform(32))
    data = read_captions(tiny.data(tmp_path_factory))
    examples = data.split("val")
    texts = [text for example in examples for text in example.captions]
    owner = np.repeat(np.arange(len(examples)), [len(example.captions) for example in examples])
    cosines = np.random.default_rng(0).normal(size=(len(examples), len(texts))).astype(np.float32)
    paths = [example.path for example in examples]
    reranker = Reranker(captioner, weight=2, sample=paths[:2])
    shape = (len(paths), len(texts))
    scorer = scorer_of(reranker)
    log_probs = scorer.score(paths, texts, all_pairs(paths, texts))
    log_probs, priors = log_probs.reshape(shape), scorer.log_priors(texts)
    found = rerank_split(reranker, cosines, data, "val", top).own
    for i, rank in enumerate(found.image_to_text):
        order = np.argsort(-cosines[i])
        first = order[:top]
        added = evidence_for_texts(log_probs[i, first][None], priors[first][None])[0]
        first = first[np.argsort(-cosines[i, first] - 2 * added)]
        own = np.flatnonzero(owner == i)
        assert rank == min([*first, *order[top:]].index(t) for t in own)
    for t, rank in enumerate(found.text_to_image):
        order = np.argsort(-cosines[:, t])
        first = order[:top]
        first = first[np.argsort(-cosines[first, t] - 2 * log_probs[first, t])]
        assert rank == [*first, *order[top:]].index(owner[t])


def test_captioners_are_not_reranked(run):
    with pytest.raises(InputError, match=r"^--rerank has no effect on a 'captioning' model"):
        evaluate.main(["--checkpoint", str(run), "--rerank", str(run), "--output", "scores"])
