"""Captioner and Caption: images, options, scores, heatmaps, JSON, checkpoints."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

from captioner import Caption, Captioner, DecodingOptions, InputError
from captioner.checkpoints.captioning import restore
from captioner.checkpoints.checkpoint import load, load_checkpoint_weights
from tests.support import tiny
from tests.support.signing import sign


@pytest.fixture(params=[False, True], ids=["show-and-tell", "attention"])
def run(request, tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=request.param)


@pytest.fixture
def attention_run(tmp_path_factory):
    return tiny.run(tmp_path_factory, attention=True)


@pytest.fixture
def captioner(run):
    return Captioner.from_pretrained(run, "cpu")


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


def draw() -> Image.Image:
    """An image without symmetry, in colours of the training data."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[:, :20] = tiny.COLOURS["red"]
    pixels[:10, 20:] = tiny.COLOURS["blue"]
    return Image.fromarray(pixels)


def same(a: Caption, b: Caption) -> bool:
    return a.text == b.text and math.isclose(a.score, b.score, abs_tol=1e-4)


# ---- captions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["greedy", "sample", "beam"])
def test_the_fields_of_a_caption_agree(captioner, images, method):
    count = 1 if method == "greedy" else 3
    for caption in captioner.caption(images, method=method, num_captions=count):
        assert isinstance(caption, Caption)
        assert caption.text == " ".join(caption.words)
        assert len(caption.log_probs) == len(caption.words) + 1  # and the end token
        assert max(caption.log_probs) <= 0
        assert caption.score == sum(caption.log_probs)
        assert len(caption.alternatives) == count - 1
        power = DecodingOptions().penalty if method == "beam" else 0
        ranks = [c.score / len(c.log_probs) ** power for c in (caption, *caption.alternatives)]
        assert ranks == sorted(ranks, reverse=True)
        for each in (caption, *caption.alternatives):
            if captioner.model.options.attention:
                assert isinstance(each.attention, np.ndarray)
                assert each.attention.shape == (len(each.words), 2, 2)
                assert each.attention.sum((1, 2)) == pytest.approx(1, abs=1e-5)
            else:
                assert each.attention is None
        assert all(other.alternatives == () for other in caption.alternatives)


def test_the_model_has_learned(captioner, images):
    """With an untrained model, equal captions would prove little."""
    captions = captioner.caption(images)
    right = sum(
        colour in caption.words for colour, caption in zip(tiny.COLOURS, captions, strict=False)
    )
    assert right >= 4
    assert len({caption.text for caption in captions}) >= 4


def test_one_image_gives_a_caption_and_several_a_list(captioner, images):
    one = captioner.caption(images[0])
    assert isinstance(one, Caption)
    assert one.image == images[0]
    several = captioner.caption(tuple(images))
    assert isinstance(several, list)
    assert [c.image for c in several] == images
    assert same(several[0], one)
    assert captioner.caption([]) == []


@pytest.mark.parametrize("options", [{}, {"beam_size": 5}, {"method": "sample", "seed": 7}])
def test_a_batch_gives_the_captions_of_single_images(captioner, images, options):
    alone = [captioner.caption(image, **options) for image in images]
    for batch_size in (1, 2, 32):
        batch = captioner.caption(images, batch_size=batch_size, **options)
        assert all(same(a, b) for a, b in zip(alone, batch, strict=True))
        if alone[0].attention is not None:
            for a, b in zip(alone, batch, strict=True):
                np.testing.assert_allclose(a.attention, b.attention, atol=1e-4)
    backwards = captioner.caption(images[::-1], **options)[::-1]
    assert all(same(a, b) for a, b in zip(alone, backwards, strict=True))


def test_captioning_changes_no_state(captioner, images):
    before = {key: value.clone() for key, value in captioner.model.state_dict().items()}
    generator = torch.get_rng_state()
    first = captioner.caption(images)
    captioner.score(images[:1], [first[0].text])
    assert torch.equal(generator, torch.get_rng_state())
    assert torch.is_grad_enabled()
    assert not captioner.model.training
    for key, value in captioner.model.state_dict().items():
        assert torch.equal(value, before[key])
    assert all(same(a, b) for a, b in zip(first, captioner.caption(images), strict=True))


# ---- images -------------------------------------------------------------------------------------


def test_every_kind_of_image_with_the_same_pixels_gets_the_same_caption(captioner, tmp_path):
    image = draw()
    image.save(tmp_path / "image.png")
    pixels = np.array(image)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = captioner.caption(image)
    ways = [tmp_path / "image.png", str(tmp_path / "image.png"), pixels, tensor, tensor / 255]
    for way in ways:
        assert same(captioner.caption(way), expected)
    assert all(same(caption, expected) for caption in captioner.caption(ways))


def test_images_of_every_mode(captioner, tmp_path):
    image = draw()
    upright = captioner.caption(image)
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(image.size))
    on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), transparent)
    pairs = {
        "rgba.png": (transparent, on_white.convert("RGB")),
        "grey.png": (image.convert("L"), image.convert("L").convert("RGB")),
        "palette.png": (image.convert("P", palette=Image.Palette.ADAPTIVE), image),
        "cmyk.tif": (image.convert("CMYK"), image.convert("CMYK").convert("RGB")),
    }
    for name, (given, rgb) in pairs.items():
        given.save(tmp_path / name)
        expected = captioner.caption(rgb)
        assert same(captioner.caption(tmp_path / name), expected), name
        assert same(captioner.caption(given), expected), name
    turned = image.transpose(Image.Transpose.ROTATE_90)
    assert not same(captioner.caption(turned), upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # viewers turn it back
    turned.save(tmp_path / "turned.png", exif=exif)
    assert same(captioner.caption(tmp_path / "turned.png"), upright)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.png", "'gone.png': no such file"),
        (None, "an image must be a path, bytes, .* got NoneType"),
        (7, "an image must be a path, bytes, .* got int"),
        (
            torch.zeros(5, 2, 3, 4, 4),
            r"an image tensor must have a nonempty shape \(H, W\), .*, got \(5, 2, 3, 4, 4\)",
        ),
        ([["a.png"]], "an image must be a path, .* got list"),
    ],
)
def test_values_that_are_not_images(captioner, image, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        captioner.caption(image)


# ---- options ------------------------------------------------------------------------------------


def test_decoding_options(captioner, images):
    caption = captioner.caption(images[0], max_length=2, min_length=2)
    assert len(caption.words) == 2 == len(caption.log_probs)  # cut, so there is no end token
    with pytest.raises(
        InputError, match="unknown option 'beams' for DecodingOptions; the options are allo"
    ):
        captioner.caption(images[0], beams=3)
    with pytest.raises(InputError, match="beam_size must be at least 1, got 0"):
        captioner.caption(images[0], beam_size=0)
    with pytest.raises(InputError, match="num_captions 4 is above beam_size 3"):
        captioner.caption([], num_captions=4)  # even without images
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        captioner.caption(images, batch_size=0)


def test_alternatives_are_distinct_and_leave_the_best_caption_unchanged(captioner, images):
    best = captioner.caption(images[0], beam_size=4)
    caption = captioner.caption(images[0], beam_size=4, num_captions=4)
    assert same(caption, best)
    assert len({c.text for c in (caption, *caption.alternatives)}) == 4


def test_word_alternatives_are_the_remaining_vocabulary(captioner, images):
    plain, detailed = (
        captioner.caption(images[0], num_captions=2, word_alternatives=k) for k in (0, 99)
    )
    assert same(detailed, plain)
    assert plain.word_alternatives == ()
    known = {*captioner.vocabulary.words, ""}  # "" is the end
    for caption in (detailed, *detailed.alternatives):
        assert len(caption.word_alternatives) == len(caption.words)
        first = caption.word_alternatives[0]
        assert {word for word, _ in first} == known - {caption.words[0], ""}  # a caption has a word
        for word, log_prob, others in zip(
            caption.words,
            caption.log_probs,
            caption.word_alternatives,
            strict=False,  # log_probs includes the end token
        ):
            assert {other for other, _ in others} | {word, ""} == known
            assert math.exp(log_prob) + sum(math.exp(p) for _, p in others) == pytest.approx(
                1, abs=1e-4
            )
            assert [p for _, p in others] == sorted((p for _, p in others), reverse=True)


# ---- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"method": "greedy"}, {"method": "sample", "seed": 1}])
def test_a_caption_gets_its_own_score(captioner, images, options):
    captions = captioner.caption(images, **options)
    scores = captioner.score(images, [caption.text for caption in captions])
    assert scores == pytest.approx([caption.score for caption in captions], abs=1e-3)
    upper_case = captioner.score(images, [f"{c.text.upper()} !" for c in captions])
    assert upper_case == pytest.approx(scores, abs=1e-4)


def test_a_correct_text_scores_higher_than_a_wrong_one(captioner, images):
    image = images[list(tiny.COLOURS).index("yellow")]
    right, wrong = captioner.score([image] * 2, ["yellow and nothing else", "else else yellow"])
    assert wrong < right < 0


def test_the_score_of_one_pair_is_a_float(captioner, images, tmp_path):
    image = draw()
    image.save(tmp_path / "image.png")
    pixels = np.array(image)
    (expected,) = captioner.score([image], ["red and blue"])
    ways = [tmp_path / "image.png", str(tmp_path / "image.png"), pixels]
    for way in [*ways, image, torch.from_numpy(pixels).permute(2, 0, 1)]:
        score = captioner.score(way, "red and blue", batch_size=1)
        assert isinstance(score, float)
        assert score == pytest.approx(expected, abs=1e-4)
    assert -math.inf < captioner.score(image, "red zebra", allow_unknown=True) < 0
    with pytest.raises(InputError, match="texts must be a list for a list of images, got 'red'"):
        captioner.score(images[:3], "red")


def test_one_image_with_several_texts_has_a_score_for_each(captioner, images):
    texts = ["else else yellow", "yellow and nothing else", "all at all is all one sees here"]
    image = images[list(tiny.COLOURS).index("yellow")]
    alone = [captioner.score(image, text) for text in texts]
    sizes = []
    with captioner.model.encoder.register_forward_hook(lambda *call: sizes.append(len(call[-1]))):
        for batch_size in (1, 2, 32):
            assert captioner.score(image, texts, batch_size=batch_size) == pytest.approx(
                alone, abs=1e-4
            )
    assert sizes == [1, 1, 1]  # the image is encoded once, whatever the number of texts
    assert max(zip(alone, texts, strict=True))[1] == texts[1]
    assert captioner.score(image, []) == []


def test_a_directory_a_batch_and_an_iterator_give_a_list(captioner, images):
    expected = captioner.caption(images)
    directory = images[0].parent
    assert captioner(images[0]).text == expected[0].text
    for given in (str(directory), directory, sorted(directory.glob("*.png")), iter(images)):
        assert [c.text for c in captioner(given)] == [c.text for c in expected]
    frames = np.stack([np.asarray(Image.open(path)) for path in images])
    assert all(map(same, captioner(frames), captioner(list(frames))))
    assert [c.text for c in captioner(frames)] == [c.text for c in expected]
    bgr = frames[..., ::-1]
    assert all(map(same, captioner.stream(bgr, bgr=True), captioner(frames)))
    assert captioner.score(bgr[0], "red", bgr=True) == captioner.score(frames[0], "red")
    assert np.array_equal(captioner(bgr[:1], bgr=True)[0].image, frames[0])  # for heatmaps


def test_a_path_is_not_a_model():
    with pytest.raises(InputError, match=r"; use Captioner.from_pretrained\('checkpoints/a'\)$"):
        Captioner("checkpoints/a")


def test_repr_names_model_vocabulary_and_device(captioner, run):
    kind = "Show, Attend and Tell" if captioner.model.has_attention else "Show and Tell"
    words = len(captioner.vocabulary.words)
    assert repr(captioner) == f"Captioner({kind} with small_cnn; {words} words, cpu, float32)"
    both = Captioner.from_pretrained([run, run], precision="auto")
    assert repr(both) == (
        f"Captioner({kind} with small_cnn + {kind} with small_cnn; {words} words, cpu, auto)"
    )


def test_scores_do_not_depend_on_the_batch(captioner, images):
    texts = ["red", "yellow and nothing else at all", "all at all", "blue is all one sees", "red"]
    expected = captioner.score(images[:5], texts)
    sizes, encoder = [], captioner.model.encoder
    with encoder.register_forward_hook(lambda *call: sizes.append(len(call[-1]))):
        for batch_size, batches in ((1, [1] * 5), (2, [2, 2, 1]), (5, [5])):
            scores = captioner.score(images[:5], texts, batch_size=batch_size)
            assert scores == pytest.approx(expected, abs=1e-4)
            assert sizes == batches
            sizes.clear()


def test_invalid_arguments_of_score(captioner, images):
    assert captioner.score([], []) == []
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        captioner.score(images[:1], ["red"], batch_size=0)
    with pytest.raises(
        InputError, match="images and texts must have the same length, got 2 images and 1 texts"
    ):
        captioner.score(images[:2], ["red"])
    message = (
        r"the vocabulary does not contain 'quokka', 'zebra'; pass allow_unknown=True to score un"
    )
    with pytest.raises(InputError, match=message):
        captioner.score(images[:2], ["red zebra", "quokka and zebra"])
    (score,) = captioner.score(images[:1], ["red zebra"], allow_unknown=True)
    assert -100 < score < 0
    with pytest.raises(
        InputError, match=r"a text must contain at least one word to be scored, got '\.\.\.'"
    ):
        captioner.score(images[:2], ["red", "..."])


# ---- JSON ---------------------------------------------------------------------------------------


def example(**changes) -> Caption:
    others = ((("a", -1.23456), ("", -2.0)), ())
    maps = np.full((2, 1, 3), 1 / 3, np.float32)
    return replace(
        Caption("A dog", ("A", "dog"), -3.00004, (-1.0, -2.0, -0.00004), maps, (), "x.png", 0.25),
        **{"word_alternatives": others, **changes},
    )


def test_a_caption_as_json():
    content = example(alternatives=(example(word_alternatives=()),)).to_dict()
    plain = {
        "caption": "A dog",
        "score": -3.0,
        "words": ["A", "dog"],
        "log_probs": [-1.0, -2.0, -0.0],
    }
    words = [[{"word": "a", "log_prob": -1.2346}, {"word": "", "log_prob": -2.0}], []]
    assert content == {**plain, "word_alternatives": words, "alternatives": [plain]}
    assert json.loads(json.dumps(content)) == content


def test_a_caption_as_json_with_attention_and_dimmed_words():
    content = example(alternatives=(example(),)).to_dict(attention=True, dimmed=True)
    for each in (content, *content["alternatives"]):
        assert each["attention"] == [[[0.3333] * 3]] * 2
        assert each["offset"] == 0.25
        assert each["dimmed"] == [True, False]
    assert example(attention=None).to_dict(attention=True)["attention"] is None
    assert json.loads(json.dumps(content)) == content


# ---- heatmaps -----------------------------------------------------------------------------------


def test_save_heatmap(attention_run, tmp_path):
    caption = Captioner.from_pretrained(attention_run, "cpu").caption(draw())
    caption.save_heatmap(tmp_path / "maps" / "out.png")
    with Image.open(tmp_path / "maps" / "out.png") as figure:
        assert figure.format == "PNG"
        assert min(figure.size) > 100


def test_notebooks_show_the_maps(attention_run):
    caption = Captioner.from_pretrained(attention_run, "cpu").caption(draw())
    html = caption._repr_html_()
    assert html.count("data:image/jpeg") == 1 + len(caption.words)
    assert all(f">{word}<" in html for word in caption.words)


def test_heatmap_of_a_model_without_attention(tmp_path_factory, tmp_path):
    plain = Captioner.from_pretrained(tiny.run(tmp_path_factory, attention=False), "cpu")
    with pytest.raises(
        InputError, match="heatmaps cannot be drawn: this model has no attention; train"
    ):
        plain.caption(draw()).save_heatmap(tmp_path / "out.png")
    assert list(tmp_path.iterdir()) == []


# ---- checkpoints --------------------------------------------------------------------------------


def test_a_run_or_a_checkpoint_loads_from_anywhere(run, images, tmp_path, monkeypatch):
    expected = Captioner.from_pretrained(run, "cpu").caption(images)
    shutil.copytree(run / "best", tmp_path / "sent")
    monkeypatch.chdir(tmp_path)
    for path in ("sent", str(tmp_path / "sent"), run / "best"):
        captions = Captioner.from_pretrained(path, "cpu").caption(images)
        assert all(same(a, b) for a, b in zip(captions, expected, strict=True))
    monkeypatch.chdir(tmp_path / "sent")
    assert Captioner.from_pretrained(".").vocabulary.words


def test_precision(run, images):
    """Captions may differ if two are about equally likely; scores differ little."""
    exact = Captioner.from_pretrained(run, "cpu")
    half = Captioner.from_pretrained(run, "cpu", "bfloat16")
    for one, other in ((exact, half), (half, exact)):
        captions = one.caption(images)
        scores = other.score(images, [caption.text for caption in captions])
        assert scores != [caption.score for caption in captions]
        assert scores == pytest.approx([caption.score for caption in captions], abs=0.05)
    with pytest.raises(InputError, match="precision must be one of auto, float32, bfloat16, int8,"):
        Captioner.from_pretrained(run, "cpu", "float16")


def test_a_stream_yields_each_batch_as_soon_as_it_is_decoded(run, images):
    captioner, encoded = Captioner.from_pretrained(run, "cpu"), []
    many = [*images, *images]
    with captioner.model.encoder.register_forward_hook(lambda *call: encoded.append(call)):
        stream = captioner.stream(many, batch_size=2)
        first = next(stream)
        assert len(encoded) == 1
        texts = [first.text, *(caption.text for caption in stream)]
    assert texts == [caption.text for caption in captioner.caption(many)]


def test_a_bad_image_in_a_stream(captioner, images):
    """Its error is raised or yielded in its place; the other captions are unchanged."""
    mixed = [images[0], "gone.png", images[1], np.zeros((0, 2, 3), np.uint8)]
    for batch_size in (1, 3, 32):
        results = list(captioner.stream(mixed, batch_size=batch_size, on_error="yield"))
        assert [type(each) for each in results] == [Caption, InputError, Caption, InputError]
        assert str(results[1]) == "'gone.png': no such file; check the path"
        assert all(same(results[i], captioner.caption(mixed[i])) for i in (0, 2))
        with pytest.raises(InputError, match=r"'gone.png': no such file"):
            list(captioner.stream(mixed, batch_size=batch_size))
    assert len(list(captioner.stream(["gone.png"] * 3, batch_size=2, on_error="yield"))) == 3
    with pytest.raises(InputError, match="on_error must be stop or yield, got 'skip'"):
        next(captioner.stream(mixed, on_error="skip"))


def test_compile(run, monkeypatch):
    compiled = []
    monkeypatch.setattr("captioner.captioner.compile_steps", lambda m: compiled.append(m) or m)
    plain = Captioner.from_pretrained(run, "cpu")
    assert compiled == []
    fast = Captioner.from_pretrained(run, "cpu", compile=True)
    assert compiled == [fast.model]
    assert fast.model is not plain.model


def test_missing_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint .*gone does not exist"):
        Captioner.from_pretrained(tmp_path / "gone")


ABSURD = 10**6  # a hidden size whose weights would take 16 TB


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["model"].update(hidden_size=ABSURD),
        lambda c: c["model"].update(hidden_size=10**18),
        lambda c: c["model"].update(hidden_size=10**30),
        lambda c: c["model"].update(hidden_size=0),
        lambda c: c["model"].update(hidden_size="48"),
        lambda c: c["model"].update(embedding_size=49),
        lambda c: c["model"].update(attention=not c["model"]["attention"]),
        lambda c: c["model"].update(beams=3),
        lambda c: c.update(model=[1]),
        lambda c: c.pop("model"),
        lambda c: c.pop("encoder"),
        lambda c: c["encoder"].update(encoder="resnet18"),
        lambda c: c["encoder"].update(encoder="eyes"),
        lambda c: c["encoder"].update(fine_tune_encoder=99),
        lambda c: c.pop("transform"),
        lambda c: c["transform"].update(size=0),
        lambda c: c["transform"].update(size="big"),
        lambda c: c["transform"].update(size=100_000),
        lambda c: c["transform"].update(std=[1, 1, 1e-45]),
        lambda c: c["transform"].update(mean=[math.nan, 0, 0]),
        lambda c: c["transform"].update(crop=3),
    ],
)
def test_a_config_that_does_not_fit_the_weights(attention_run, tmp_path, change):
    directory = tmp_path / "sent"
    shutil.copytree(attention_run / "best", directory)
    config = json.loads((directory / "config.json").read_text())
    change(config)
    (directory / "config.json").write_text(json.dumps(config))
    sign(directory)
    with pytest.raises(
        InputError,
        match=f"checkpoint {directory} cannot be used: (its files do not match|config.json)",
    ):
        Captioner.from_pretrained(directory)


def with_weight(run, directory, name, change):
    """Copy a checkpoint with one changed tensor and a valid manifest."""
    shutil.copytree(run / "best", directory)
    weights = load_file(directory / "model.safetensors")
    save_file({**weights, name: change(weights[name])}, directory / "model.safetensors")
    sign(directory)
    return directory


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64", "int64"])
def test_weights_of_another_type_are_refused(attention_run, tmp_path, dtype):
    name = "words.weight"
    sent = with_weight(
        attention_run, tmp_path / "sent", name, lambda w: w.to(getattr(torch, dtype))
    )
    message = f"do not match each other: {name} is {dtype}, but must be float32; copy or download"
    with pytest.raises(InputError, match=message):
        Captioner.from_pretrained(sent)
    source = load(sent)
    model, _ = restore(load(attention_run))
    with pytest.raises(InputError, match=f"do not fit the model: {name} is {dtype}, but must be"):
        load_checkpoint_weights(model, source)


def test_negative_variances_are_refused(attention_run, tmp_path):
    name = next(n for n in load(attention_run).weights if n.endswith("running_var"))
    sent = with_weight(attention_run, tmp_path / "sent", name, lambda variances: -variances)
    with pytest.raises(InputError, match=f"{name} contains negative values; choose"):
        Captioner.from_pretrained(sent)


def test_a_vocabulary_that_does_not_fit_the_weights(attention_run, tmp_path):
    directory = tmp_path / "sent"
    shutil.copytree(attention_run / "best", directory)
    words = json.loads((directory / "vocabulary.json").read_text())
    words["words"].append("more")
    (directory / "vocabulary.json").write_text(json.dumps(words))
    sign(directory)
    with pytest.raises(
        InputError, match=r"match each other: .*size mismatch for words.weight"
    ) as caught:
        Captioner.from_pretrained(directory)
    assert "\n" not in str(caught.value)


def test_restored_weights_equal_the_file(run):
    read = load(run)
    model, transform = restore(read)
    state = model.state_dict()
    assert state.keys() == read.weights.keys()
    assert transform.size == 32
    assert all(torch.equal(state[key], value) for key, value in read.weights.items())
    assert all(value.device.type == "cpu" for value in model.buffers())


def test_the_public_names():
    import captioner

    assert set(captioner.__all__) >= {"Captioner", "Caption", "DecodingOptions", "__version__"}
    assert len(captioner.__all__) < 13
    assert DecodingOptions().method == "beam"
    assert Path(captioner.__file__).name == "__init__.py"


# ---- deprecated names ---------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "arguments"), [("caption", ()), ("score", ("red",))])
def test_pictures_is_a_deprecated_name_of_images(captioner, images, method, arguments):
    call = getattr(captioner, method)
    message = rf"the parameter pictures of {method}\(\) is deprecated; use images"
    keywords = {"texts": arguments[0]} if arguments else {}
    with pytest.warns(DeprecationWarning, match=message) as caught:
        old = call(pictures=images[0], **keywords)
    assert caught[0].filename == __file__
    new = call(images=images[0], **keywords)
    assert same(old, new) if method == "caption" else old == new
    with pytest.raises(TypeError, match="got both images and pictures"):
        call(images=images[0], pictures=images[0], **keywords)


def test_pictures_is_a_deprecated_name_of_images_in_stream(captioner, images):
    with pytest.warns(DeprecationWarning, match=r"the parameter pictures of stream\(\)"):
        stream = captioner.stream(pictures=images[:2])
    assert [caption.image for caption in stream] == images[:2]


def test_picture_is_a_deprecated_name_of_image():
    with pytest.warns(DeprecationWarning, match=r"Caption.picture is deprecated; use Caption.imag"):
        assert example().picture == "x.png"
