"""Captioning and scoring a split, in the library and with evaluate.py."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nltk.translate.bleu_score import corpus_bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocotools.coco import COCO

import evaluate
import train
from captioner import Captioner
from captioner.checkpoints import checkpoint
from captioner.data.demo import dataset as demo
from captioner.data.demo.shapes import KINDS, PLURALS, DrawnShape
from captioner.data.readers import read_captions
from captioner.data.sources import FunctionSource, ImageSource
from captioner.decoding import decode as decoding
from captioner.decoding.decode import DecodeSettings
from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.evaluation.split import (
    ScoringSettings,
    evaluate_split,
    measure_pointing,
    score_captions,
)
from captioner.metrics.caption_statistics import Statistics, statistics
from captioner.metrics.captions import corpus_scores, signature
from captioner.metrics.pointing import Pointing, pointing
from captioner.text.tokenizer import split_words
from captioner.text.vocabulary import Vocabulary
from captioner.vision.encoders import Encoder, SmallCNN
from tests.support import tiny

WITHOUT_JAVA = ["--metrics", "bleu,rouge-l,cider"]  # Java takes seconds to start
NAMES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr")
POINTING = Pointing(3, 1.0, 4)


@pytest.fixture
def run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def data(tmp_path_factory):
    return read_captions(tiny.data(tmp_path_factory))


@pytest.fixture
def captioner(run):
    return Captioner.from_pretrained(run, "cpu")


def evaluate_images(captioner, examples, decoding=None, shapes=(), **scoring):
    files = ImageSource([example.path for example in examples], captioner.transform)
    result = evaluate_split(
        captioner.model,
        captioner.vocabulary,
        examples,
        files,
        decoding or DecodeSettings(),
        ScoringSettings(**scoring),
    )
    return measure_pointing(result, captioner.model, captioner.vocabulary, shapes)


# ---- in the library -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"batch_size": 3}, {"batch_size": 1, "workers": 1}])
def test_batching_does_not_change_the_captions(captioner, data, more):
    examples = data.split("val")
    options = DecodingOptions(beam_size=4, length_penalty=0.7)
    result = evaluate_images(captioner, examples, DecodeSettings(options, **more))
    assert list(result.texts) == list(result.hypotheses) == [e.id for e in examples]
    for example in examples:
        alone = captioner.caption(example.path, beam_size=4, length_penalty=0.7)
        assert result.texts[example.id] == alone.text
        assert result.hypotheses[example.id].score == pytest.approx(alone.score, abs=1e-4)
    assert len(set(result.texts.values())) > 3  # the model distinguishes its images
    assert result.pointing is None


def test_features_and_images_give_the_same_captions(captioner, data):
    examples = data.split("val")
    files = ImageSource([example.path for example in examples], captioner.transform)
    with torch.no_grad():
        maps = captioner.model.encoder(files.load(range(len(examples))))
    source = FunctionSource(lambda indices: maps[list(indices)].half(), are_features=True)
    model, settings = captioner.model, DecodeSettings(batch_size=3)
    result = evaluate_split(model, captioner.vocabulary, examples, source, settings)
    assert result.texts == evaluate_images(captioner, examples).texts


def test_evaluation_restores_the_models_mode(captioner, data):
    before = {key: value.clone() for key, value in captioner.model.state_dict().items()}
    for training in (True, False):
        captioner.model.train(training)
        evaluate_images(captioner, data.split("test"))
        assert captioner.model.training is training
    captioner.model.train()
    broken = [replace(data.examples[0], path=Path("gone.png"))]
    with pytest.raises(InputError, match="no such file"):
        evaluate_images(captioner, broken)
    assert captioner.model.training
    for key, value in captioner.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_captions_are_scored_against_all_references_with_their_rare_words(captioner, data):
    examples = [replace(e, captions=(*e.captions, "quokka")) for e in data.split("val")]
    result = evaluate_images(captioner, examples)
    references = {e.id: e.captions for e in examples}
    assert result.scores.corpus == corpus_scores(result.texts, references)
    assert result.statistics == statistics(result.texts, references)
    assert 20 < result.scores.corpus["BLEU-4"] <= 100


@pytest.mark.slow
def test_pointing_is_measured_if_the_data_has_shapes_and_the_model_attention(
    captioner, data, tmp_path_factory
):
    examples = data.split("val")
    vocabulary = captioner.vocabulary
    noun = KINDS[0]
    shape = DrawnShape(noun, "red", "small", "solid", (0, 0, 64, 64))
    shapes = {example.id: [shape] for example in examples[:3]}
    result = evaluate_images(captioner, examples, shapes=shapes)
    assert noun not in vocabulary.words
    assert result.pointing == Pointing()
    assert "pointing" not in result.describe()  # without mentions there is no percentage

    captioner.model.encoder.offset = -0.5
    renamed = [noun if word == "all" else word for word in vocabulary.words]
    captioner.vocabulary = Vocabulary(renamed)
    result = evaluate_images(captioner, examples, shapes=shapes)
    expected = Pointing()
    for example in examples[:3]:
        hypothesis = result.hypotheses[example.id]
        words = captioner.vocabulary.decode(hypothesis.tokens)
        expected += pointing(words, hypothesis.attention[: len(words)], [shape], offset=-0.5)
    assert result.pointing == expected
    assert expected.count > 0
    plain = Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=False), "cpu")
    assert evaluate_images(plain, examples, shapes=shapes).pointing is None


def test_describe_prints_scores_statistics_and_signature():
    texts, references = {1: "a dog runs"}, {1: ["a dog runs", "a cat"]}
    result = score_captions(texts, references, ScoringSettings(["bleu", "rouge-l"], ["a dog runs"]))
    assert result.describe().split("\n") == [
        "BLEU-1 100.00  BLEU-2 100.00  BLEU-3 100.00  BLEU-4 3.16  ROUGE-L 100.00",
        str(statistics(texts, references, ["a dog runs"])),
        signature([["", ""]], ["BLEU-1", "ROUGE-L"]),
        "note: no caption has 4 or more words, so BLEU-4 is at most 3.2 even if every caption is "
        "perfect",
    ]
    assert result.texts == texts
    assert result.hypotheses == {}
    expected = {"novelty": 0, "mean_length": 3, "vocabulary_used": 3, "distinct": 100}
    assert result.numbers.items() >= (result.scores.corpus | expected).items()
    (row,) = result.rows
    assert row.pop("image_id") == 1
    assert list(row) == list(result.scores.corpus)
    assert row == pytest.approx(result.scores.corpus, abs=1e-4)
    noted = replace(result, scores=replace(result.scores, note="note: x"), pointing=POINTING)
    assert noted.describe().splitlines()[3:] == [
        "note: x",
        "pointing accuracy 75.0 % of 4 shape words (chance 25.0 %)",
    ]


# ---- evaluate.py --------------------------------------------------------------------------------


@pytest.fixture
def work(tmp_path, run, monkeypatch):
    """A working directory with a copy of the run."""
    shutil.copytree(run, tmp_path / "checkpoints" / "attention")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*options, workers=0):
    more = [*map(str, options), "--workers", str(workers)]
    if "--checkpoint" not in more:
        more = ["--checkpoint", "checkpoints/attention", *more]
    evaluate.main([*WITHOUT_JAVA, *more])


def results(directory):
    return [
        json.loads(Path(directory, name).read_text()) for name in ("captions.json", "scores.json")
    ]


def test_scores_and_files_agree_with_other_tools(work, data, capsys):
    """With references that differ from the training captions, so that scores are in between."""
    shutil.copytree(data.root, "other/colours")
    references = Path("other/colours/annotations/captions_val.json")
    changed = references.read_text().replace("sees here", "saw there").replace("else", "more")
    references.write_text(changed)
    data = read_captions("other/colours")
    call("--split", "val", "--data", "other/colours")
    printed = capsys.readouterr().out.splitlines()
    captions, scores = results("checkpoints/attention/evaluation-val")
    examples = data.split("val")
    assert printed[0] == ("checkpoints/attention/best on colours, val split, 7 images")
    assert printed[1] == "  ".join(f"{name} {scores[name]:.2f}" for name in NAMES)
    images = scores.pop("images")
    properties = {name: scores[name] for name in scores if name not in NAMES}
    assert printed[2] == str(Statistics(**properties))
    assert "novelty" not in properties
    assert printed[3] == signature([e.captions for e in examples])
    assert printed[3].startswith("BLEU+ROUGE-L+CIDEr|tok")
    assert "|references:2|" in printed[3]
    assert printed[4:] == [
        "captions and scores: " + str(work / "checkpoints/attention/evaluation-val")
    ]

    # nltk and pycocoevalcap get the same scores from the files.
    references = [[split_words(text) for text in example.captions] for example in examples]
    written = {entry["image_id"]: split_words(entry["caption"]) for entry in captions}
    hypotheses = [written[example.id] for example in examples]
    for n in range(1, 5):
        bleu = 100 * corpus_bleu(references, hypotheses, weights=[1 / n] * n)
        assert scores[f"BLEU-{n}"] == pytest.approx(bleu, abs=1e-6)
    assert 95 > scores["BLEU-1"] > scores["BLEU-2"] > scores["BLEU-4"] > 1
    numbered = {i: [" ".join(words) for words in several] for i, several in enumerate(references)}
    lines = {i: [" ".join(words)] for i, words in enumerate(hypotheses)}
    for name, scorer in (("ROUGE-L", Rouge()), ("CIDEr", Cider())):
        whole, each = scorer.compute_score(numbered, lines)
        assert scores[name] == pytest.approx(100 * whole)
        assert whole > 0.1
        assert [row[name] for row in images] == pytest.approx(list(100 * each), abs=1e-4)
    assert [row["image_id"] for row in images] == [example.id for example in examples]

    # pycocotools reads the captions.
    coco = COCO(data.root / "annotations" / "captions_val.json")
    loaded = coco.loadRes("checkpoints/attention/evaluation-val/captions.json")
    assert sorted(loaded.getImgIds()) == sorted(e.id for e in examples)
    assert {a["image_id"]: a["caption"] for a in loaded.dataset["annotations"]} == {
        entry["image_id"]: entry["caption"] for entry in captions
    }


@pytest.mark.usefixtures("work")
def test_scores_equal_those_of_validation_during_training(run):
    call()
    scores = results("checkpoints/attention/evaluation-val")[1]
    assert len(scores.pop("images")) == 7
    assert 0 <= scores.pop("novelty") <= 100
    assert scores == pytest.approx(checkpoint.load(run).config["scores"], abs=1e-4)


@pytest.mark.usefixtures("work")
def test_each_split_has_its_directory_and_output_overrides_it(data):
    call("--split", "dev", workers=1)
    call("--split", "val", "--output", "out/val", "--batch-size", "2")
    call("--split", "test")
    assert results("checkpoints/attention/evaluation-val") == results("out/val")
    ids = [entry["image_id"] for entry in results("checkpoints/attention/evaluation-test")[0]]
    assert ids == [example.id for example in data.split("test")]


@pytest.mark.usefixtures("work")
def test_runtime_options_reach_the_captioner(monkeypatch):
    calls, from_checkpoints = [], Captioner.from_checkpoints

    def recorded(checkpoints, *options):
        calls.append(options)
        return from_checkpoints(checkpoints, *options[:2])

    monkeypatch.setattr(Captioner, "from_checkpoints", recorded)
    call("--precision", "bfloat16", "--compile", "--device", "cpu")
    call("--device", "cpu")
    assert calls == [("cpu", "bfloat16", True), ("cpu", "float32", False)]


@pytest.mark.usefixtures("work")
def test_results_go_to_the_run_of_the_checkpoint(capsys):
    call("--checkpoint", "checkpoints/attention/last")
    assert "checkpoints/attention/last on colours" in capsys.readouterr().out
    assert Path("checkpoints/attention/evaluation-val/scores.json").is_file()
    shutil.copytree("checkpoints/attention/best", "mine")  # a checkpoint without its run
    call("--checkpoint", "mine")
    assert Path("mine/evaluation-val/scores.json").is_file()
    checkpoint.load("mine")  # is still intact


@pytest.mark.usefixtures("work")
def test_decoding_options_reach_the_search(captioner, data):
    call("--method", "greedy", "--max-length", "3", "--output", "out")
    for entry, example in zip(results("out")[0], data.split("val"), strict=True):
        alone = captioner.caption(example.path, method="greedy", max_length=3)
        assert entry["caption"] == alone.text
        assert len(alone.words) <= 3


@pytest.mark.usefixtures("work")
def test_data_other_than_the_training_data(capsys):
    for name in "abcdefghij":
        path = Path("other/Images") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(Path(tiny_root()).rglob("200.png")), path)
    rows = "".join(f'{c}.png,"{c} ÿ, red"\n' for c in "abcdefghij")
    Path("other/captions.txt").write_text("image,caption\n" + rows, encoding="utf-8")
    call("--data", "other", "--split", "test")
    assert "on other, test split, 1 images" in capsys.readouterr().out
    captions, _ = results("checkpoints/attention/evaluation-test")
    assert captions[0]["image_id"].endswith(".png")


def tiny_root():
    return checkpoint.load("checkpoints/attention").config["data"]["path"]


@pytest.mark.usefixtures("work")
def test_training_data_that_no_longer_exists():
    config = Path("checkpoints/attention/best/config.json")
    moved = config.read_text().replace(tiny_root(), "/gone/data")
    config.write_text(moved)
    manifest = config.with_name("manifest.json")
    sums = json.loads(manifest.read_text())
    sums["config.json"] = checkpoint._sha256(config)
    manifest.write_text(json.dumps(sums))
    with pytest.raises(
        InputError, match=r"^training data /gone/data no longer exists; pass --data with its"
    ):
        call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "validation"], "unknown split 'validation'; choose train, val"),
        (
            ["--num-captions", "2"],
            "num_captions must be 1 for evaluation, got 2; omit --num-captions",
        ),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--temperature", "2"], "temperature requires method 'sample', got method 'beam'"),
        (["--data", "gone"], "data set gone does not exist"),
        (["--device", "tpu9"], "device must be cpu, cuda, cuda:N or mps, got 'tpu9'"),
    ],
)
@pytest.mark.usefixtures("work")
def test_options_that_cannot_work_are_refused_before_any_work(options, message):
    before = set(Path().rglob("evaluation-*"))
    with pytest.raises(InputError, match=message):
        call(*options)
    assert set(Path().rglob("evaluation-*")) == before


@pytest.mark.usefixtures("work")
def test_workers_below_zero_are_refused():
    with pytest.raises(InputError, match="workers must be at least 0, got -1"):
        call(workers=-1)


@pytest.fixture
def frozen(data, tmp_path, monkeypatch):
    """A working directory with a run of a frozen encoder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    torch.save(SmallCNN().state_dict(), "encoder.pth")
    options = ["--data", str(data.root), "--encoder-weights", "encoder.pth", "--run", "frozen"]
    train.main([*options, "--attention", *tiny.OPTIONS])
    return "checkpoints/frozen"


def encoded_images(monkeypatch):
    """A list to which the size of each batch that an encoder encodes is added from now on."""
    sizes, forward = [], Encoder.forward

    def counted(encoder, images):
        sizes.append(len(images))
        return forward(encoder, images)

    monkeypatch.setattr(Encoder, "forward", counted)
    return sizes


def test_features_of_a_frozen_encoder_are_stored(frozen, monkeypatch):
    sizes = encoded_images(monkeypatch)
    call("--checkpoint", frozen)
    assert sizes == []  # training stored those of val
    call("--checkpoint", frozen, "--split", "test")
    call("--checkpoint", frozen, "--split", "test")
    assert sizes == [3]
    stored = results(f"{frozen}/evaluation-test")
    call("--checkpoint", frozen, "--split", "test", "--cache", "other")
    assert sizes == [3, 3]
    assert results(f"{frozen}/evaluation-test") == stored


def test_an_ensemble_and_a_trained_encoder_encode_images(frozen, run, monkeypatch):
    sizes = encoded_images(monkeypatch)
    call("--checkpoint", run, "--split", "test", "--output", "out", "--cache", "cache")
    call("--checkpoint", frozen, "--checkpoint", frozen, "--output", "out", "--cache", "cache")
    assert sum(sizes) >= 3 + 7
    assert not list(Path("cache").glob("features-*"))


def test_features_that_cannot_be_stored_are_computed(frozen, monkeypatch, capsys):
    sizes = encoded_images(monkeypatch)
    Path("file").write_text("x")
    capsys.readouterr()
    call("--checkpoint", frozen, "--cache", "file/cache")
    assert capsys.readouterr().out.startswith("note: features are not stored: the feature store ")
    assert sum(sizes) == 7


def test_a_checkpoint_or_predictions_are_required(capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([])
    assert "pass either --checkpoint, for example checkpoints/" in capsys.readouterr().err


def test_pointing_accuracy_of_the_demo_is_printed(tmp_path, monkeypatch, capsys):
    """The demo is found without --data; its boxes define where attention should peak."""
    monkeypatch.chdir(tmp_path)
    write = demo.write_demo
    monkeypatch.setattr(
        demo, "write_demo", lambda directory: write(directory, train=8, val=3, test=2)
    )
    train.main([*tiny.OPTIONS, "--attention", "--min-count", "3"])
    nouns = {*KINDS, *PLURALS.values()}

    def name_shapes(model, features, decoding):
        """The model's captions with every word replaced by a kind of shape."""
        vocabulary = checkpoint.load("checkpoints/demo-attention").vocabulary
        noun = vocabulary.encode([next(w for w in vocabulary.words if w in nouns)])[0]
        return [
            [replace(h, tokens=(*[noun] * (len(h.tokens) - 1), h.tokens[-1])) for h in n_best]
            for n_best in decode(model, features, decoding)
        ]

    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", name_shapes)
    capsys.readouterr()
    evaluate.main(
        ["--checkpoint", "checkpoints/demo-attention", "--min-length", "3", *WITHOUT_JAVA]
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("checkpoints/demo-attention/best on demo, val split, 3 images")
    assert printed[4].startswith("pointing accuracy ")
    assert "shape words (chance " in printed[4]
