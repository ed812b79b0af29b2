"""Ensembles against their members asked one by one, and what may not be one."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
from captioner import Captioner
from captioner import __main__ as commands
from captioner.checkpoints import checkpoint
from captioner.data.images import Transform
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.decoding.teacher_forcing import score_captions
from captioner.errors import InputError
from captioner.models.captioning.build import CompiledSteps
from captioner.models.captioning.ensemble import Candidate, Ensemble, build_ensemble, share_encoders
from captioner.text.vocabulary import Vocabulary
from captioner.vision.encoders import Encoder
from tests.support import tiny
from tests.support.toys import METHODS, all_captions, found, ranked

PAD, START, END, UNKNOWN = range(4)
MIXTURES = [(False, False), (True, True), (False, True), (True, False, True)]


@pytest.fixture(params=MIXTURES, ids=lambda kinds: "-".join("+" if a else "0" for a in kinds))
def members(request, tiny_model):
    """Models of different sizes and encoders, with (True) or without attention."""
    return [
        tiny_model(has_attention, seed=seed, hidden_size=9 + seed).eval()
        for seed, has_attention in enumerate(request.param)
    ]


@pytest.fixture
def maps(members, features):
    """What each member's encoder might see in four images, side by side."""
    return torch.cat([features(4, seed) for seed in range(len(members))], dim=1)


def ask(members, image, words):
    """The mean of the members' log-probabilities (V,) after `words`, and their last maps."""
    rows, maps = [], []
    for member, own in zip(members, image[None].split(10, dim=1), strict=True):
        with torch.no_grad():
            memory, state = member.start(own, 1)
            for token in (START, *words):
                scores, state, attention = member.step(torch.tensor([token]), state, memory)
        rows.append(scores[0].log_softmax(0))
        maps.append(attention)
    return torch.stack(rows).mean(0), [m[0] for m in maps if m is not None]


def next_words(members, image):
    """A function from words to {next word: log-probability}, each asked once."""
    known = {}

    def after(words):
        if words not in known:
            row, _ = ask(members, image, words)
            row[[PAD, START, UNKNOWN] if words else [PAD, START, END, UNKNOWN]] = -math.inf
            row = row.log_softmax(0).tolist()
            known[words] = {word: p for word, p in enumerate(row) if p > -math.inf}
        return known[words]

    return after


def together(models):
    share_encoders(models)
    return Ensemble(models)


# ---- what an ensemble says ----------------------------------------------------------------------


@pytest.mark.parametrize("options", METHODS, ids=lambda o: f"{o.method}-{o.num_captions}")
def test_a_model_with_itself_is_the_model(attention, options, tiny_model, features):
    model, images = tiny_model(attention).eval(), features(4)
    ensemble = together([model, copy.deepcopy(model)])
    assert ensemble.has_attention is attention
    expected, captions = (decode(m, images, options) for m in (model, ensemble))
    for several, others in zip(captions, expected, strict=True):
        assert [h.tokens for h in several] == [h.tokens for h in others]
        for one, other in zip(several, others, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)
            if attention:
                np.testing.assert_allclose(one.attention, other.attention, atol=1e-6)
            else:
                assert one.attention is None
    tokens = torch.tensor([[[START, 5, 9, END, PAD], [START, 4, 4, 6, END]]] * 4)
    scores = [score_captions(m, images, tokens, DecodingOptions()) for m in (ensemble, model)]
    torch.testing.assert_close(*scores)


def test_all_captions_are_ranked_by_the_mean_of_log_probabilities(members, maps):
    ensemble = together(members).eval()
    options = DecodingOptions(beam_size=1500, num_captions=30, max_length=3, length_penalty=0)
    (hypotheses,) = decode(ensemble, maps[:1], options)
    ended, _ = all_captions(next_words(members, maps[0]), 3)
    assert len(ended) == 11 + 11**2
    assert found(hypotheses) == ranked(ended, 0.0)[:30]


def test_greedy_and_scores_and_maps_are_those_of_the_members_one_by_one(members, maps):
    ensemble = together(members).eval()
    captions = decode(ensemble, maps, DecodingOptions("greedy", max_length=6))
    seen = set()
    for image, (hypothesis,) in zip(maps, captions, strict=True):
        after, words, log_probs = next_words(members, image), (), []
        while len(words) < 6 and END not in words:
            word = max(after(words), key=after(words).get)
            words, log_probs = (*words, word), [*log_probs, after(words)[word]]
        assert hypothesis.tokens == words
        assert hypothesis.log_probs == pytest.approx(log_probs, abs=1e-4)
        tokens = torch.tensor([[[START, *words]]])
        scores = score_captions(ensemble, image[None], tokens, DecodingOptions())
        assert scores[0, 0].tolist() == pytest.approx(log_probs, abs=1e-4)
        for t in range(len(words)):
            _, looked = ask(members, image, words[:t])
            assert ensemble.has_attention is (len(looked) > 0)
            if looked:
                mean = sum(looked) / len(looked)
                np.testing.assert_allclose(hypothesis.attention[t], mean, atol=1e-5)
            else:
                assert hypothesis.attention is None
        seen.add(round(sum(log_probs), 3))
    assert len(seen) == len(maps)  # each image makes a difference


@pytest.mark.parametrize(("seeds", "runs"), [((0, 0), 1), ((0, 1), 2), ((0, 1, 0), 2)], ids=str)
def test_equal_encoders_run_once(seeds, runs, tiny_model):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    members = [tiny_model(True, seed=seed).eval() for seed in seeds]
    calls = []
    for member in members:
        member.encoder.register_forward_hook(lambda *_: calls.append(1))
    alone = [member.encoder(images) for member in members]
    calls.clear()
    ensemble = together(members)
    features = ensemble.encoder(images)
    assert len(calls) == runs
    assert features.shape == (4, 10 * runs, 4, 4)
    memory, _ = ensemble.start(features, 1)
    for number, (member, maps) in enumerate(zip(members, alone, strict=True)):
        expected, _ = member.start(maps, 1)
        torch.testing.assert_close(memory[f"{number}.values"], expected["values"])
    assert len({id(member.encoder) for member in members}) == runs  # and are in memory once


# ---- what may be one ----------------------------------------------------------------------------

WORDS, TRANSFORM = ("red", "green"), Transform(32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transform": Transform(64)}, "size is 32 in the first and 64 in the second"),
        (
            {"transform": Transform(32, mean=(0, 0, 0))},
            r"mean is \(0.485, 0.456, 0.406\) in the first and \(0.0, 0.0, 0.0\) in the second",
        ),
        ({"transform": Transform(32, std=(1, 1, 1))}, r"std is \(0.229, .* and \(1.0, 1.0, 1.0\)"),
        ({"layers": 2}, r"grid is \(4, 4\) in the first and \(8, 8\) in the second"),
        ({"words": ("red", "blue")}, "word 2 is 'green' in the first and 'blue' in the second"),
        ({"words": ("green", "red")}, "word 1 is 'red' in the first and 'green' in the second"),
        ({"words": ("red",)}, "word 2 is 'green' in the first and None in the second"),
        ({"words": (*WORDS, "blue")}, "word 3 is None in the first and 'blue' in the second"),
    ],
)
def test_members_see_and_say_the_same(change, message, tiny_model):
    def member(name, words=WORDS, transform=TRANSFORM, layers=3):
        model = tiny_model(True)
        model.encoder = Encoder("tiny", model.encoder.layers[:layers])
        return Candidate(name, model, transform, Vocabulary(words))

    alike = [member("a"), member("b"), member("c")]
    assert len(build_ensemble(alike).members) == 3
    with pytest.raises(InputError, match=f"^a and d cannot form an ensemble: {message}"):
        build_ensemble([*alike, member("d", **change)])


@pytest.fixture
def runs(tmp_path_factory):
    return [tiny.run(tmp_path_factory, attention=attention) for attention in (True, False)]


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


@pytest.fixture
def other_words(runs, tmp_path):
    """A checkpoint that has another word for its first."""
    read = checkpoint.load(runs[0])
    words = Vocabulary(["magenta", *read.vocabulary.words[1:]])

    def save(directory):
        words.save(directory / checkpoint.VOCABULARY)

    checkpoint.save(tmp_path / "other", read.config, save, read.weights, read.training_state())
    return tmp_path / "other"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_captioner_of_several(runs, images, precision):
    several = Captioner.from_pretrained(runs, "cpu", precision)
    captions = several.caption(images)
    assert several.device == torch.device("cpu")
    assert several.model.has_attention
    assert len({caption.text for caption in captions}) >= 4
    scores = several.score(images, [caption.text for caption in captions])
    rounding = 1e-4 if precision == "float32" else 0.05
    assert scores == pytest.approx([c.score for c in captions], abs=rounding)
    for caption in captions:
        assert caption.attention.sum((1, 2)) == pytest.approx(1, abs=1e-5)


def test_a_list_of_one_is_the_model_and_twice_the_same_is_like_it(runs, images):
    for run in runs:
        alone = Captioner.from_pretrained(run, "cpu")
        one, two = (Captioner.from_pretrained(paths, "cpu") for paths in ([run], (run, str(run))))
        assert type(one.model) is type(alone.model)
        assert isinstance(two.model, Ensemble)
        for options in ({}, {"method": "greedy"}, {"method": "sample", "seed": 3}):
            expected = alone.caption(images, **options)
            for captioner in (one, two):
                captions = captioner.caption(images, **options)
                assert [c.text for c in captions] == [c.text for c in expected]
                scores = [c.score for c in expected]
                assert [c.score for c in captions] == pytest.approx(scores, abs=1e-4)
                assert captioner.score(images, [c.text for c in captions]) == pytest.approx(
                    alone.score(images, [c.text for c in expected]), abs=1e-4
                )


def test_no_checkpoint_and_checkpoints_that_differ(runs, other_words):
    with pytest.raises(InputError, match="at least one checkpoint is required, got none"):
        Captioner.from_pretrained([])
    message = f"^{runs[1]}/best and {other_words} cannot form an ensemble: word 1 is '.*' in"
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained([runs[1], other_words], "cpu")


def test_compile_reaches_every_member(runs):
    fast = Captioner.from_pretrained(runs, "cpu", compile=True)
    assert [type(member) for member in fast.model.members] == [CompiledSteps] * 2


# ---- the commands -------------------------------------------------------------------------------


def test_evaluate_with_several(runs, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["--checkpoint", *map(str, runs), *"--workers 0 --device cpu --metrics bleu".split()]
    message = "several checkpoints have no common run directory; pass --output"
    with pytest.raises(InputError, match=message):
        evaluate.main(asked)
    evaluate.main([*asked, "--output", "out"])
    said = f"{runs[0]}/best + {runs[1]}/best on colours, val split, 7 images"
    assert capsys.readouterr().out.splitlines()[0] == said
    captions = json.loads(Path("out/captions.json").read_text())
    expected = Captioner.from_pretrained(runs, "cpu").caption(images)
    found = {entry["image_id"]: entry["caption"] for entry in captions}
    assert found == {int(c.image.stem): c.text for c in expected}
    assert Path("out/scores.json").is_file()


def test_caption_with_several(runs, images, tmp_path, capsys):
    words = ["caption", "--checkpoint", str(runs[0]), "--checkpoint", str(runs[1]), "--device=cpu"]
    commands.main([*words, *map(str, images)])
    expected = Captioner.from_pretrained(runs, "cpu").caption(images)
    assert capsys.readouterr().out.splitlines() == [f"{c.image}\t{c.text}" for c in expected]
    to_file = [str(images[0]), "--output", str(tmp_path / "out.jsonl")]
    commands.main([*words, *to_file])
    with pytest.raises(
        InputError, match=r"different options: checkpoint was '\w+ \+ \w+' but is now '\w+'"
    ):
        commands.main(["caption", *words[3:], *to_file])
    plain = ["--checkpoint", str(runs[1])] * 2
    with pytest.raises(InputError, match=rf"drawn: {runs[1]} \+ {runs[1]} has no attention; omit"):
        commands.main(["caption", *plain, *to_file[:1], "--heatmap", str(tmp_path)])


def test_serve_with_several(runs, monkeypatch):
    def listen(*_):
        raise InputError("never")

    given = []
    monkeypatch.setattr(
        Captioner, "from_checkpoints", lambda read, *_: given.extend(each.path for each in read)
    )
    monkeypatch.setattr("captioner.serving.server.listen", listen)
    with pytest.raises(InputError, match="never"):
        commands.main(["serve", *map(str, runs)])
    assert [path.parent for path in given] == runs


def test_the_data_are_those_of_the_first(runs, tmp_path, monkeypatch):
    """Wherever the others were trained."""
    read = checkpoint.load(runs[1])
    config = {**read.config, "data": {**read.config["data"], "path": "/gone/data"}}

    def save(directory):
        read.vocabulary.save(directory / checkpoint.VOCABULARY)

    checkpoint.save(tmp_path / "moved", config, save, read.weights, read.training_state())
    monkeypatch.chdir(tmp_path)
    options = "--workers 0 --device cpu --output out --split test --metrics bleu".split()
    evaluate.main(["--checkpoint", str(runs[0]), "moved", *options])
    with pytest.raises(InputError, match="training data /gone/data no longer exists; pass --data"):
        evaluate.main(["--checkpoint", "moved", str(runs[0]), *options])


def test_mistakes_with_several(runs, other_words, tmp_path):
    plain = str(runs[1])
    different = ["--checkpoint", plain, str(other_words)]
    with pytest.raises(InputError, match="cannot form an ensemble: word 1 is"):
        evaluate.main([*different, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
