"""Training, evaluating and re-ranking by multimodal CNNs on tiny data."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import captioner
import evaluate
from captioner import Captioner, Index, Linker, Reranker, TrainConfig
from captioner import __main__ as command
from captioner.checkpoints import checkpoint
from captioner.data.images import Transform
from captioner.data.readers import read_captions
from captioner.errors import InputError, Interrupted
from captioner.metrics.retrieval import retrieval_scores
from captioner.tasks.linking import text_vectors
from captioner.tasks.linking.mcnn import McnnJob
from captioner.tasks.linking.pair_scores import evenly_spaced
from captioner.tasks.linking.reranking import rerank_split
from captioner.tasks.linking.vectors import image_of_caption
from tests.support import linking, tiny
from tests.support.interrupting import assert_same_run, interrupt_at

SIZES = {"word_size": 8, "maps": 8, "hidden_size": 16, "image_dimensions": 16, "image_size": 32}
PLAIN = {"device": "cpu", "workers": 0, "precision": "float32", "curves": False}
OPTIONS = {**SIZES, **PLAIN, "text_min_count": 1, "batch_size": 8, "epochs": 2}
EVALUATE = "--device cpu --workers 0 --cache cache --split test"


def train_python(data, **options):
    return captioner.train(TrainConfig.from_options(system="mcnn", data=data, **OPTIONS | options))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The directory of a run for each of two levels."""
    here = tmp_path_factory.mktemp("mcnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for level in ("word", "sentence"):
            train_python(tiny.data(tmp_path_factory), level=level, run=level)
    return here / "checkpoints"


@pytest.fixture
def colours(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.data(tmp_path_factory)


def split_of(data, split="test"):
    examples = read_captions(data).split(split)
    texts = [text for example in examples for text in example.captions]
    return examples, [example.path for example in examples], texts


@pytest.mark.slow
def test_the_colours_are_learned_with_the_encoder_of_a_captioner(colours, tmp_path_factory):
    encoder = {"encoder_weights": str(tiny.run(tmp_path_factory, attention=True))}
    sizes = {"word_size": 32, "maps": 32, "hidden_size": 64, "image_dimensions": 32}
    patient = {"epochs": 40, "patience": 40, "average": 0.0, "learning_rate": 0.003, "dropout": 0.0}
    result = train_python(colours, level="sentence", run="run", **encoder, **sizes, **patient)
    assert result.scores["i2t_R@1"] > 80
    images = sorted((colours / "val").glob("*.png"))
    texts = [f"{colour} is all one sees here" for colour in list(tiny.COLOURS)[:7]]
    hits = result.linker.similarity(images, texts).argmax(1) == np.arange(7)
    assert hits.sum() >= 6


def test_an_encoder_from_scratch_is_trained(colours):
    first, second = (
        train_python(colours, run=f"{epochs}", epochs=epochs, average=0.0).run / "last"
        for epochs in (1, 2)
    )
    weights = [checkpoint.load(run).weights for run in (first, second)]
    names = [n for n in weights[0] if n.startswith("encoder.") and n.endswith(".weight")]
    assert names
    for name in names:
        assert not torch.equal(weights[0][name], weights[1][name]), name


def test_a_checkpoint_scores_as_the_model_that_was_saved(colours):
    """The scores of training, of evaluation and of Python agree."""
    result = train_python(colours, run="run", level="phrase")
    examples, paths, texts = split_of(colours, "val")
    scores = Linker.from_pretrained("checkpoints/run", "cpu").similarity(paths, texts)
    expected = retrieval_scores(scores, image_of_caption(examples), "val").numbers
    assert {name: result.scores[name] for name in expected} == pytest.approx(expected)
    words = EVALUATE.replace("test", "val").split()
    evaluate.main(["--checkpoint", "checkpoints/run", *words])
    found = json.loads(Path("checkpoints/run/evaluation-val/scores.json").read_text())
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_validation_says_which_images_it_ranks(colours, capsys):
    train_python(colours, run="run", val_images=3, epochs=1)
    out = capsys.readouterr().out
    assert "val split, all pairs of 3 images and their captions" in out
    assert "val: 3 images, 6 texts, ranked all at once" in out
    assert "checkpoints/run/matches.html" in out
    assert "m-CNN of 64 image channels and" in out or "merged at the sentence level" in out
    assert evenly_spaced(7, 3) == [0, 2, 4]
    assert evenly_spaced(2, 3) == [0, 1]


def test_an_ensemble_is_the_sum_of_its_members(runs, colours, capsys):
    paths = [runs / level for level in ("word", "sentence")]
    examples, images, texts = split_of(colours)
    linkers = [Linker.from_pretrained(path, "cpu") for path in paths]
    total = sum(linker.similarity(images, texts) for linker in linkers)
    expected = retrieval_scores(total, image_of_caption(examples), "test").numbers
    words = ["--checkpoint", *map(str, paths), "--output", "scores", "--ranked-images", "0"]
    evaluate.main([*words, *EVALUATE.split()])
    found = json.loads(Path("scores/scores.json").read_text())
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    count = len(examples)
    shown = f"{paths[0]}/best + {paths[1]}/best on colours, test split, {count} of {count} images"
    assert shown in capsys.readouterr().out


def test_some_images_are_ranked(runs, colours):
    examples, _, _ = split_of(colours)
    words = ["--checkpoint", str(runs / "word"), "--output", "scores", "--ranked-images", "2"]
    evaluate.main([*words, *EVALUATE.split()])
    protocol = json.loads(Path("scores/scores.json").read_text())["protocol"]
    assert protocol.startswith("test: 2 images, 4 texts, ranked all at once")
    assert len(examples) > 2


def test_other_checkpoints_do_not_join_an_ensemble(runs, colours, tmp_path_factory):
    paths = [str(runs / "word"), str(linking.run(tmp_path_factory))]
    with pytest.raises(InputError, match=r"trained for 'linear', not 'mcnn'; choose another"):
        evaluate.main(["--checkpoint", *paths, "--output", "scores", *EVALUATE.split()])
    assert colours.exists()


def test_a_stopped_run_continues_as_if_it_had_not_stopped(colours, monkeypatch):
    """The negatives that a batch draws are the same."""
    few = {"negatives": 3, "dropout": 0.2}
    train_python(colours, run="whole", **few)
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch, McnnJob, "batches")
        with pytest.raises(Interrupted):
            train_python(colours, run="parts", **few)
    train_python(colours, run="parts", resume="last", **few)
    assert_same_run(Path("checkpoints/whole"), Path("checkpoints/parts"))


# ---- re-ranking ---------------------------------------------------------------------------------


def test_a_split_is_reranked_by_an_ensemble(runs, colours, tmp_path_factory):
    """The candidates by cosine + weight * sum of scores; the rest keep their order behind them."""
    linker = Linker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    examples, images, texts = split_of(colours, "val")
    cosines, owner = linker.similarity(images, texts), image_of_caption(examples)
    paths = [runs / level for level in ("word", "sentence")]
    total = sum(Linker.from_pretrained(path, "cpu").similarity(images, texts) for path in paths)
    top, weight = 3, 0.5
    reranker = Reranker.from_pretrained(paths, "cpu", weight=weight, cache="cache")
    found = rerank_split(reranker, cosines, read_captions(colours), "val", top).own
    combined = cosines + weight * total

    def order(before, after):
        first = np.argsort(-before)
        candidates = first[:top]
        return [*candidates[np.argsort(-after[candidates])], *first[top:]]

    for i, rank in enumerate(found.image_to_text):
        expected = order(cosines[i], combined[i])
        assert rank == min(expected.index(t) for t in np.flatnonzero(owner == i))
    for t, rank in enumerate(found.text_to_image):
        assert rank == order(cosines[:, t], combined[:, t]).index(owner[t])


def test_evaluation_and_search_rerank_by_several_models(runs, colours, tmp_path_factory, capsys):
    run = linking.run(tmp_path_factory)
    paths = [str(runs / level) for level in ("word", "sentence")]
    flags = ["--rerank", *paths, "--rerank-top", "4", "--rerank-weight", "0.2"]
    evaluate.main(["--checkpoint", str(run), *flags, "--output", "scores", *EVALUATE.split()])
    assert f"the best 4 of each query, re-ranked by {' + '.join(paths)}:" in capsys.readouterr().out
    content = json.loads(Path("scores/scores.json").read_text())["reranked"]
    assert (content["rerank"], content["rerank_weight"]) == (paths, 0.2)
    images = sorted(map(str, (colours / "val").glob("*.png")))
    rest = ["--checkpoint", str(run), "--device", "cpu"]
    command.main(["index", *images, "--output", "photos.index", "--cache", "cache", *rest])
    capsys.readouterr()
    query = "red is all one sees here"
    words = ["search", "photos.index", query, "--rerank", paths[0], "--rerank", paths[1]]
    command.main([*words, "--top", "3", "--device", "cpu", "--json", "--cache", "cache"])
    shown = json.loads(capsys.readouterr().out)["hits"]
    linkers = [Linker.from_pretrained(path, "cpu") for path in paths]
    scores = Linker.from_pretrained(run, "cpu").similarity(images, query)[:, 0]
    scores = scores + sum(linker.similarity(images, query)[:, 0] for linker in linkers) * 0.075
    of_image, found = dict(zip(images, scores, strict=True)), [hit["score"] for hit in shown]
    assert found == pytest.approx([of_image[hit["image"]] for hit in shown], abs=2e-3)
    assert found == pytest.approx(np.sort(scores)[:-4:-1], abs=2e-3)


def test_texts_are_reranked_for_an_image(runs, colours, tmp_path_factory):
    run = linking.run(tmp_path_factory)
    texts = ["red is all one sees here", "blue and nothing else", "green zebra"]
    Path("texts.txt").write_text("".join(f"{text}\n" for text in texts))
    words = ["index", "--texts", "texts.txt", "--output", "texts.index", "--device", "cpu"]
    command.main([*words, "--checkpoint", str(run)])
    image = str(sorted((colours / "val").glob("*.png"))[1])
    index, reranker = Index.open("texts.index"), Reranker.from_pretrained(runs / "word", "cpu")
    before = {hit.text: hit.score for hit in index.search(f"image:{image}")}
    linker = Linker.from_pretrained(runs / "word", "cpu")
    for hit in index.search(f"image:{image}", reranker=reranker):
        known = " ".join(w for w in hit.text.split() if w != "zebra")  # unknown words are ignored
        added = 0.1 * linker.similarity(image, known)[0, 0]
        assert hit.score == pytest.approx(before[hit.text] + added, abs=1e-3)


def test_m_cnns_share_their_default_weight(runs, tiny_model, vocabulary):
    level = Linker.from_pretrained(runs / "word", "cpu")
    captioner = Captioner(tiny_model(True), vocabulary, Transform(32))
    assert Reranker(level).weights == [0.1]
    assert Reranker([level, captioner, level]).weights == pytest.approx([0.075, 0.03, 0.075])
    assert Reranker([level, captioner, level], weight=0.1).weights == [0.1, 0.1, 0.1]


def test_only_models_of_pairs_rerank(tmp_path_factory):
    with pytest.raises(InputError, match=r"^a linking model that compares .* --system mcnn$"):
        Reranker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    with pytest.raises(InputError, match=r"^re-ranking needs at least one model, got none; pass"):
        Reranker([])


# ---- what needs embeddings ----------------------------------------------------------------------


def test_what_needs_embeddings_says_what_to_do_instead(runs, colours):
    linker = Linker.from_pretrained(runs / "word", "cpu")
    image = next((colours / "val").glob("*.png"))
    message = "^an m-CNN scores pairs and has no embeddings; use it to re-rank the results of anot"
    for call in (
        lambda: linker.encode_images(image),
        lambda: linker.encode_texts("red"),
        lambda: linker.encode_query("red"),
        lambda: linker.rank("red", images=[image]),
    ):
        with pytest.raises(InputError, match=message):
            call()
    rest = ["--checkpoint", str(runs / "word"), "--device", "cpu", "--output"]
    for words in (
        ["index", str(image), *rest, "photos.index"],
        ["index", "--texts", *rest, "texts.index"],
        ["encode", "--images", str(image), *rest, "images.npy"],
        ["encode", "--texts", "red", *rest, "texts.npy"],
    ):
        with pytest.raises(InputError, match=message):
            command.main(words)
    assert not any(Path(name).exists() for name in ("photos.index", "images.npy", "texts.npy"))


def test_an_m_cnn_is_described_but_not_served(runs, capsys):
    command.main(["info", str(runs / "word")])
    assert "level word" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(
        InputError, match=r"trained for 'mcnn', which cannot be served; pass the run"
    ):
        command.main(["serve", str(runs / "word"), "--device", "cpu"])


def test_similarity_checks_its_texts(runs, colours):
    linker = Linker.from_pretrained(runs / "word", "cpu")
    image = next((colours / "val").glob("*.png"))
    with pytest.raises(InputError, match=r"^the texts contain unknown words: 'zebra'"):
        linker.similarity(image, "red zebra")
    assert linker.similarity(image, ["red", "blue"]).shape == (1, 2)
    assert linker.similarity([], ["red", "blue"]).shape == (0, 2)


def test_other_models_have_no_scores_of_pairs(colours, tmp_path_factory):
    linker = Linker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    with pytest.raises(InputError, match=r"^only an m-CNN scores pairs without embeddings; use a"):
        linker.score_source(None, 1, linker.texts.read(["red"]))
    assert colours.exists()


# ---- options ------------------------------------------------------------------------------------


def test_words_start_from_a_file_of_vectors(colours):
    words = ("red", "blue", "is", "all")
    vectors = np.random.default_rng(0).normal(size=(len(words), 8))
    lines = [f"{w} {' '.join(map(str, v))}\n" for w, v in zip(words, vectors, strict=True)]
    Path("words.txt").write_text("".join(lines))
    slow = {"learning_rate": 1e-9, "epochs": 1, "average": 0.0, "run": "run"}
    result = train_python(colours, word_vectors="words.txt", **slow)
    read = checkpoint.load(result.run)
    rows = read.weights["words.weight"][torch.tensor(read.vocabulary.encode(words))].numpy()
    vectors = vectors - vectors.mean(0)  # centred, as the vectors of all systems
    found = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_run_starts_from_another(runs, colours):
    slow = {"learning_rate": 1e-9, "encoder_learning_rate": 1e-9, "epochs": 1, "average": 0.0}
    sizes = {**SIZES, **PLAIN, "batch_size": 8}
    config = TrainConfig.from_options(
        system="mcnn", data=colours, level="word", start_from=runs / "word", run="b",
        fine_tune_encoder=0, **sizes, **slow,
    )  # fmt: skip
    result = captioner.train(config)
    _, images, texts = split_of(colours)
    expected = Linker.from_pretrained(runs / "word", "cpu").similarity(images, texts)
    assert result.linker.similarity(images, texts) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"word_vectors": "wordtovec"}, r"^word_vectors must be word2vec, random, or a \.txt, \."),
        ({"word_vectors": "gone.txt"}, "^word vectors gone.txt do not exist; check the path"),
        ({"val_images": 0}, "^val_images must be at least 1, got 0"),
        ({"samples": 2}, "^--samples has no effect with --system mcnn"),
        ({"margin": 0.3, "loss": "infonce"}, "^--margin needs --loss hinges"),
        ({"temperature": 0.3}, "^--temperature needs --loss infonce"),
        (
            {"start_from": "run"},
            "^--text-min-count cannot be combined with --start-from",
        ),
    ],
)
def test_invalid_options(colours, options, message):
    with pytest.raises(InputError, match=message):
        train_python(colours, **options)


def test_word2vec_names_its_extra(colours, monkeypatch):
    monkeypatch.setattr(text_vectors.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^word2vec needs gensim; run pip install 'captioner\[li"):
        train_python(colours, word_vectors="word2vec")


def test_the_vectors_of_words_must_have_the_size_of_the_embeddings(colours):
    Path("words.txt").write_text("red 1 2 3\nblue 2 3 4\n")
    with pytest.raises(InputError, match="have 3 dimensions, but word_size is 8; pass --word-size"):
        train_python(colours, word_vectors="words.txt")
