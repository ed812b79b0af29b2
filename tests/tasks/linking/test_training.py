"""Training and evaluating the linear map on tiny data, from Python and by commands."""

import json
import shutil
import signal
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import captioner
import evaluate
import train
from captioner import Captioner, Linker, TrainConfig
from captioner.checkpoints import checkpoint
from captioner.data.readers import read_captions
from captioner.errors import InputError, Interrupted
from captioner.tasks.linking.linear import LinearJob
from captioner.tasks.linking.text_vectors import build_sentence_encoder
from captioner.text.options import TextVectorOptions
from captioner.text.sentence_vectors import fit_counts
from tests.support import linking, tiny
from tests.support.interrupting import assert_same_run, interrupt_at
from tests.support.processes import LAUNCH, ROOT, finish, start

CPU = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(autouse=True)
def sources(tmp_path, tmp_path_factory, monkeypatch):
    """The data and the encoder's weights, as options; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    weights = str(linking.encoder_weights(tmp_path_factory))
    return {"data": tiny.data(tmp_path_factory), "encoder_weights": weights}


@pytest.fixture(params=linking.SOLVERS)
def run(request, tmp_path_factory):
    return linking.run(tmp_path_factory, request.param)


def train_python(**options):
    return captioner.train(TrainConfig.from_options(system="linear", **options))


def assert_same_weights(left, right):
    one, other = (checkpoint.load(run / "best").weights for run in (left, right))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


def scores_of(run, *flags):
    evaluate.main(["--checkpoint", str(run), "--output", "scores", *CPU, *flags])
    return json.loads(Path("scores/scores.json").read_text())


def recall_by_hand(scores, is_correct):
    """Recalls and the median rank of queries (rows), by counting wrong answers one by one."""
    ranks = []
    for row, correct in zip(scores, is_correct, strict=True):
        best = max(score for score, right in zip(row, correct, strict=True) if right)
        wrong = [score for score, right in zip(row, correct, strict=True) if not right]
        ranks.append(sum(score >= best - 1e-6 for score in wrong))
    recalls = {f"R@{k}": 100 * sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10)}
    return recalls | {"MedR": float(np.floor(np.median(ranks)) + 1)}


def scores_by_hand(linker, data, split, equal):
    """The content of scores.json from the embeddings of images and captions."""
    examples = read_captions(data).split(split)
    texts = [(i, text) for i, example in enumerate(examples) for text in example.captions]
    scores = linker.similarity([each.path for each in examples], [text for _, text in texts])

    def is_correct(image, text):
        owner, words = text
        return owner == image or (equal and words in examples[image].captions)

    correct = [[is_correct(i, text) for text in texts] for i in range(len(examples))]
    both = {
        "i2t": recall_by_hand(scores, correct),
        "t2i": recall_by_hand(scores.T, np.transpose(correct)),
    }
    named = {f"{way}_{name}": v for way, values in both.items() for name, v in values.items()}
    return named | {"rsum": sum(value for name, value in named.items() if "R@" in name)}


@pytest.mark.parametrize("solver", linking.SOLVERS)
def test_python_trains_what_the_command_trains(sources, solver, tmp_path_factory):
    trained = linking.run(tmp_path_factory, solver)
    result = train_python(**sources, **linking.SOLVERS[solver], run="python")
    assert_same_weights(result.run, trained)
    assert (result.system, result.run) == ("linear", Path("checkpoints/python"))
    assert isinstance(result.linker, Linker)
    stored = checkpoint.load(trained / "best").config["scores"]
    assert result.scores == pytest.approx(stored)
    with pytest.raises(InputError, match=r"^a 'linear' run has no captioner; use linker$"):
        _ = result.captioner


def test_the_maps_learn_the_colours(tmp_path_factory):
    """Images of one colour can have the captions of that colour only."""
    linker = Linker.from_pretrained(linking.run(tmp_path_factory), "cpu")
    images = sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))
    texts = [f"{colour} is all one sees here" for colour in list(tiny.COLOURS)[:7]]
    assert linker.similarity(images, texts).argmax(1).tolist() == list(range(7))


@pytest.mark.parametrize("split", ["val", "test", "train"])
def test_scores_agree_with_the_embeddings(run, sources, split, capsys):
    scores = scores_of(run, "--split", split)
    linker = Linker.from_pretrained(run, "cpu")
    expected = scores_by_hand(linker, sources["data"], split, equal=False)
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    printed = capsys.readouterr().out
    assert scores["protocol"].startswith(f"{split}: {tiny.COUNTS[split]} images")
    assert scores["protocol"] in printed
    assert f"rsum {scores['rsum']:.1f}" in printed
    if split != "train":  # all its colours differ
        assert "equal_texts" not in scores
        return
    equal = scores["equal_texts"]
    expected = scores_by_hand(linker, sources["data"], split, equal=True)
    assert {name: equal[name] for name in expected} == pytest.approx(expected)
    assert equal["rsum"] > scores["rsum"]
    assert equal["chance"]["t2i_R@1"] > scores["chance"]["t2i_R@1"]
    assert "equal texts of other images count as correct" in printed


def test_evaluation_of_the_val_split_repeats_the_stored_scores(run):
    stored = checkpoint.load(run).config["scores"]
    assert {k: v for k, v in scores_of(run).items() if k in stored} == pytest.approx(stored)


def test_ranking_resumes_exactly(sources, monkeypatch):
    options = linking.flags(sources | linking.SOLVERS["ranking"])
    train.main([*options, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(5, signal.SIGTERM, patch, LinearJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*options, "--run", "stopped"])
    train.main([*options, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/stopped"), Path("checkpoints/straight"))


def test_ranking_starts_from_another_run(sources, tmp_path_factory):
    before = linking.run(tmp_path_factory, "ranking")
    options = {k: v for k, v in linking.SOLVERS["ranking"].items() if k != "text_min_count"}
    options |= {"data": sources["data"], "learning_rate": 1e-9, "average": 0.0}
    result = train_python(**options, start_from=before, run="next")
    old, new = (checkpoint.load(run / "best").weights for run in (before, result.run))
    assert all(new[name].allclose(old[name], atol=1e-6) for name in old)
    text = "red and nothing else"
    np.testing.assert_allclose(
        result.linker.encode_texts(text),
        Linker.from_pretrained(before, "cpu").encode_texts(text),
        atol=1e-4,
    )


def test_a_run_is_repeated(run):
    train.main(["--config", str(run), "--run", "again", *CPU])
    assert_same_weights(Path("checkpoints/again"), run)


def test_a_cca_run_can_be_repeated_by_ranking(tmp_path_factory):
    config = TrainConfig.from_file(linking.run(tmp_path_factory), solver="ranking", epochs=2)
    assert config.system.name == "linear"
    assert (config.model.solver, config.training.epochs) == ("ranking", 2)
    assert config.task.text_min_count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 3}, "^--epochs needs --solver ranking$"),
        ({"batch_size": 9}, "^--batch-size needs --solver ranking$"),
        ({"margin": 0.2}, "^--margin needs --solver ranking$"),
        ({"resume": True}, "^--resume needs --solver ranking$"),
        ({"start_from": "checkpoints/x"}, "^--start-from needs --solver ranking$"),
        ({"solver": "ranking", "ridge": 1.0}, "^--ridge needs --solver cca$"),
        ({"samples": 4}, "^--samples has no effect with --system linear$"),
        ({"fine_tune_encoder": 3}, "^--fine-tune-encoder has no effect with --system linear$"),
        (
            {"text_dimensions": 9},
            "^--text-dimensions needs one of these --text-vectors: lsa, ppmi-svd,",
        ),
        (
            {"text_vectors": ("v.npy",), "text_min_count": 9},
            "^--text-min-count needs --text-vectors that depend on the words of the captions$",
        ),
        (
            {"image_vectors": "v.npy"},
            "^--encoder-weights cannot be combined with --image-vectors, which replaces the",
        ),
        (
            {"solver": "ranking", "start_from": "checkpoints/x", "text_vectors": ("lsa",)},
            "^--text-vectors cannot be combined with --start-from, which provides the sentence",
        ),
        ({"attention": True}, "^unknown training option 'attention' for --system linear; see"),
        ({"watch": "cider"}, "^watch must be one of rsum_equal_texts, rsum, .*, got 'cider'$"),
    ],
)
def test_options_without_effect_are_refused(sources, options, message):
    if "start_from" in options:
        del sources["encoder_weights"]
    with pytest.raises(InputError, match=message):
        TrainConfig.from_options(system="linear", **sources | options)


def test_an_untrained_encoder_is_refused(sources):
    del sources["encoder_weights"]
    with pytest.raises(InputError, match=r"^--system linear needs a trained encoder; pass a cap"):
        train_python(**sources)


def test_random_weights_of_another_encoder_are_noted(sources, capsys):
    del sources["encoder_weights"]
    encoder = {"encoder": "squeezenet1_1", "image_size": 64, "run": "random"}
    train_python(**sources | linking.PLAIN | encoder)
    assert "note: squeezenet1_1 is frozen with random weights; pass" in capsys.readouterr().out


def own_vectors(data):
    """An image's vector is its mean colour, a text's its word counts; one row per caption."""
    texts = [text for example in data.examples for text in example.captions]
    images = [
        np.eye(len(tiny.COLOURS))[list(tiny.COLOURS).index(text.split()[0])] for text in texts
    ]
    return np.array(images), fit_counts(texts, 1).encode(texts)


@pytest.mark.parametrize("solver", linking.SOLVERS)
def test_vectors_of_the_users_own(sources, solver, capsys):
    data = read_captions(sources["data"])
    images, texts = own_vectors(data)
    np.save("images.npy", images)
    np.save("texts.npy", texts)
    options = {k: v for k, v in linking.SOLVERS[solver].items() if "_" not in k}
    options |= {"data": sources["data"], "batch_size": 16, "image_vectors": "images.npy"}
    options |= {"text_vectors": ("texts.npy",), "learning_rate": 0.05, "epochs": 10}
    if solver == "cca":
        options = {k: options[k] for k in ("data", "device", "image_vectors", "text_vectors")}
    result = train_python(**options, run="own")
    assert "encode" not in capsys.readouterr().out  # new texts have no vectors
    assert result.scores["i2t_R@1"] == 100
    scores = scores_of(result.run, "--split", "test")
    assert scores["i2t_R@1"] == scores["t2i_R@1"] == 100

    linker = result.linker
    with pytest.raises(InputError, match=r"^new text cannot be encoded: texts.npy contains only"):
        linker.encode_texts("red", on_unknown="return")
    with pytest.raises(InputError, match=r"^images cannot be encoded: the model was trained with"):
        linker.encode_images(data.examples[0].path)


def test_own_vectors_belong_to_the_captions_in_reading_order(sources):
    """Nothing is learned from the rows of other captions."""
    images, texts = own_vectors(read_captions(sources["data"]))
    np.save("images.npy", np.random.default_rng(0).permutation(images))
    np.save("texts.npy", texts)
    options = {"data": sources["data"], "device": "cpu", "text_vectors": ("texts.npy",)}
    result = train_python(**options, image_vectors="images.npy", run="mixed")
    assert result.scores["i2t_R@1"] < 50


@pytest.mark.parametrize("kind", ["image_vectors", "text_vectors"])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((51, 3)), r"v\.npy have 51 rows, but there are 52 captions; write one row per"),
        (np.ones(52), r"v\.npy must be a matrix of float16, float32 or float64, got float64 \(52,"),
        (np.ones((52, 2), int), r"v\.npy must be a matrix of .*, got int64 \(52, 2\)$"),
        (np.full((52, 2), np.nan), r"v\.npy must be finite as float32, but row 0"),
    ],
)
def test_wrong_vectors_are_refused(sources, kind, array, message):
    np.save("v.npy", array)
    sources |= {kind: "v.npy" if kind == "image_vectors" else ("v.npy",)}
    if kind == "image_vectors":
        del sources["encoder_weights"]
    with pytest.raises(InputError, match=message):
        train_python(**sources, device="cpu", run="wrong")
    assert not list(Path("checkpoints").glob("wrong/*"))


def test_vectors_of_other_captions_are_refused(sources, tmp_path):
    images, texts = own_vectors(read_captions(sources["data"]))
    np.save("images.npy", images)
    np.save("texts.npy", texts)
    options = {"image_vectors": "images.npy", "text_vectors": ("texts.npy",), "device": "cpu"}
    result = train_python(data=sources["data"], **options, run="own")
    other = tiny.write_colours(tmp_path / "other")
    file = other / "annotations" / "captions_val.json"
    file.write_text(file.read_text().replace("nothing", "something"))
    with pytest.raises(
        InputError, match=r"cannot be used with .*: its vectors belong to other captions"
    ):
        scores_of(result.run, "--data", str(other))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam-size", "3"], "^--beam-size has no effect on a 'linear' model; omit it$"),
        (["--metrics", "bleu"], "^--metrics has no effect on a 'linear' model; omit it$"),
        (["--report", "r"], "^--report has no effect on a 'linear' model; omit it$"),
        (["--precision", "bfloat16"], "^--precision has no effect on a 'linear' model; omit it$"),
        (["--split", "tset"], "tset"),
    ],
)
def test_flags_of_captioning_are_refused(run, flags, message):
    with pytest.raises(InputError, match=message):
        scores_of(run, *flags)


def test_several_models_are_refused(run):
    with pytest.raises(InputError, match=r"^'linear' models cannot form an ensemble; pass one"):
        scores_of(run, "--checkpoint", str(run))


def test_tasks_do_not_mix(run, tmp_path_factory):
    with pytest.raises(
        InputError, match=r"was trained for 'linear', not 'captioning'; choose another"
    ):
        Captioner.from_pretrained(run)
    captioning = tiny.run(tmp_path_factory, attention=False)
    with pytest.raises(InputError, match=r"was trained for 'captioning', not linking"):
        Linker.from_pretrained(captioning)
    with pytest.raises(
        InputError, match=r"is a 'linear' run; pass --system linear or omit --system$"
    ):
        TrainConfig.from_file(run, system="captioning")
    source = {"data": tiny.data(tmp_path_factory), "start_from": run, "run": "mixed"}
    with pytest.raises(
        InputError,
        match=r"cannot start from .*: it is a 'linear' model, and this run is 'captioning'; cho",
    ):
        captioner.train(TrainConfig.from_options(**source, device="cpu"))


def test_unknown_words_of_val_do_not_change_the_sentence_encoder(sources):
    """Vocabulary and statistics are those of the train split."""
    data = read_captions(sources["data"])
    result = train_python(**sources, **linking.PLAIN, run="words")
    encoder = build_sentence_encoder(TextVectorOptions(text_min_count=1), data)
    train_words = {
        word for each in data.split("train") for text in each.captions for word in text.split()
    }
    assert set(result.linker.texts.sentences.words) == set(encoder.words) == train_words


def test_batches_cover_all_captions_once_per_epoch(sources, monkeypatch):
    seen, original = [], LinearJob._load

    def load(job, indices):
        batch = original(job, indices)
        seen.append((batch.ids, batch.image_of_text.tolist(), len(batch.texts)))
        return batch

    monkeypatch.setattr(LinearJob, "_load", load)
    train_python(**sources, **linking.SOLVERS["ranking"], run="seen")
    ids = [number for batch_ids, _, _ in seen for number in batch_ids]
    assert sorted(ids) == sorted(3 * list(range(16)))
    assert ids[:16] != ids[16:32]
    for batch_ids, image_of_text, texts in seen:
        assert [len(list(same)) for _, same in groupby(image_of_text)] == [2] * len(batch_ids)
        assert texts == 2 * len(batch_ids)


@pytest.mark.distributed
@pytest.mark.slow
def test_closed_form_needs_one_process(sources, tmp_path):
    options = linking.flags(sources | linking.PLAIN | {"run": "two"})
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    process = start(*LAUNCH, *place, "--", ROOT / "train.py", *options, cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    message = "a model that is fitted in closed form needs one process, got 2; run without torchrun"
    assert f"error: {message}" in output
    assert not (tmp_path / "checkpoints" / "two" / "best").exists()


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_rank_as_one(sources, tmp_path):
    """The processes average their gradients, each over the pairs of its own images."""
    options = linking.flags(sources | linking.SOLVERS["ranking"] | {"run": "two"})
    place = ["--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2"]
    printed = finish(start(*LAUNCH, *place, "--", ROOT / "train.py", *options, cwd=tmp_path))
    assert printed.count("best epoch: ") == 1
    assert Linker.from_pretrained(tmp_path / "checkpoints" / "two").encode_texts("red").any()


def test_captions_without_spaces_are_noted(sources, tmp_path, capsys):
    """A whole sentence is a word that no other sentence contains."""
    shutil.copytree(sources["data"], tmp_path / "zh")
    for file in (tmp_path / "zh" / "annotations").iterdir():
        content = json.loads(file.read_text())
        for row in content["annotations"]:
            row["caption"] = row["caption"].replace(" ", "")
        file.write_text(json.dumps(content))
    train_python(**sources | linking.PLAIN | {"data": tmp_path / "zh", "run": "zh"})
    assert "note: most captions are a single word; if their script" in capsys.readouterr().out
