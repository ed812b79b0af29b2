"""Exported programs compute what the model computes, and so does the program in the docs."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import train
from captioner import Captioner, InputError
from captioner import __main__ as commands
from captioner.checkpoints import checkpoint
from captioner.data.images import Transform, load_image
from captioner.inference import export
from tests.support import tiny

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

ROOT = Path(__file__).parents[2]
KINDS = ("show-and-tell", "soft", "hard")


def captioner(factory, kind):
    """A trained captioner; the hard one has the soft one's weights."""
    run = tiny.run(factory, attention=kind != "show-and-tell")
    read = [checkpoint.load(run)]
    if kind == "hard":
        baseline = {"baseline": torch.tensor(-1.0)}
        config = {**read[0].config, "model": {**read[0].config["model"], "hard_attention": True}}
        read = [replace(read[0], config=config, weights=read[0].weights | baseline)]
    return Captioner.from_checkpoints(read, "cpu")


class Exported:
    """A captioner and its exported programs, which take and return arrays by name."""

    def __init__(self, captioner, directory):
        self.captioner = captioner
        self.onnx, self.torch = directory / "onnx", directory / "torch"
        export.export_onnx(self.captioner, self.onnx)
        export.export_torch(self.captioner, self.torch)
        self.description = json.loads((self.onnx / "captioner.json").read_text(encoding="utf-8"))
        programs = self.description["programs"]
        self.sessions = {
            name: onnxruntime.InferenceSession(self.onnx / programs[name]["file"])
            for name in programs
        }
        self.programs = {name: torch.export.load(self.torch / f"{name}.pt2") for name in programs}

    def by_onnx(self, name, **inputs):
        names = [output["name"] for output in self.description["programs"][name]["outputs"]]
        return dict(zip(names, self.sessions[name].run(names, inputs), strict=True))

    def by_torch(self, name, **inputs):
        description = json.loads((self.torch / "captioner.json").read_text())["programs"][name]
        values = [torch.from_numpy(inputs[each["name"]]) for each in description["inputs"]]
        results = self.programs[name].module(check_guards=False)(*values)
        results = [results] if isinstance(results, torch.Tensor) else results
        names = [output["name"] for output in description["outputs"]]
        return {n: value.detach().numpy() for n, value in zip(names, results, strict=True)}


@pytest.fixture(scope="module", params=KINDS)
def exported(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    return Exported(captioner(tmp_path_factory, request.param), directory)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """An exported captioner in which all words of colours have the weights of the first."""
    read = checkpoint.load(tiny.run(tmp_path_factory, attention=True))
    words = [4 + i for i, word in enumerate(read.vocabulary.words) if word in tiny.COLOURS]
    weights = {name: value.clone() for name, value in read.weights.items()}
    for name in ("words.weight", "words.bias"):
        weights[name][words] = weights[name][words[0]].clone()
    captioner = Captioner.from_checkpoints([replace(read, weights=weights)], "cpu")
    exported = Exported(captioner, tmp_path_factory.mktemp("tied"))
    exported.words = words
    return exported


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["by_onnx", "by_torch"])
@pytest.mark.parametrize(("count", "hypotheses"), [(1, 1), (1, 4), (2, 3), (5, 1)])
def test_the_programs_compute_what_the_model_computes(exported, runtime, count, hypotheses):
    """Features, then three steps of scores, states and maps, each from the library's inputs."""
    run, model = getattr(exported, runtime), exported.captioner.model
    generator = torch.Generator().manual_seed(count)
    side = exported.captioner.transform.size
    pixels = torch.randn(count, 3, side, side, generator=generator)
    with torch.no_grad():
        features = model.encoder(pixels).contiguous()
        assert_close(run("encoder", pixels=pixels.numpy())["features"], features)
        memory, state = model.start(features, 0)
        started = run("start", features=features.numpy())
        assert list(started) == [*memory, *state]
        for name, value in memory.items():
            assert_close(started[name], value)
        for name, value in state.items():
            assert_close(started[name], value[:, None])
        state = {name: value.repeat_interleave(hypotheses, 0) for name, value in state.items()}
        for _ in range(3):
            tokens = torch.randint(
                len(exported.captioner.vocabulary), (count, hypotheses), generator=generator
            )
            rows = {n: v.unflatten(0, (count, hypotheses)).numpy() for n, v in state.items()}
            given = {n: v.contiguous().numpy() for n, v in memory.items()}
            outputs = run("step", tokens=tokens.numpy(), **rows, **given)
            scores, state, attention = model.step(tokens.flatten(), state, memory)
            assert_close(outputs["scores"], scores.unflatten(0, tokens.shape))
            for name, value in state.items():
                assert_close(outputs[f"next_{name}"], value.unflatten(0, tokens.shape))
            assert (
                ("attention" in outputs)
                == model.has_attention
                == exported.description["has_attention"]
            )
            if model.has_attention:
                assert_close(outputs["attention"], attention.unflatten(0, tokens.shape))


@pytest.mark.slow
def test_the_description_matches_the_programs(exported):
    """Shapes, with the free sizes filled in, and types are those of the outputs."""
    description, captioner = exported.description, exported.captioner
    assert description["format"] == 2
    assert tuple(description["words"][4:]) == captioner.vocabulary.words
    assert description["never"] == [0, 1, 3]
    assert description["image"]["size"] == captioner.transform.size
    assert description["offset"] == captioner.model.encoder.offset
    free = {"images": 3, "hypotheses": 2}
    for name, part in description["programs"].items():
        inputs = {
            each["name"]: np.ones([free.get(size, size) for size in each["shape"]], each["type"])
            for each in part["inputs"]
        }
        outputs = exported.by_onnx(name, **inputs)
        for each in part["outputs"]:
            shape = tuple(free.get(size, size) for size in each["shape"])
            assert (outputs[each["name"]].shape, outputs[each["name"]].dtype) == (
                shape,
                each["type"],
            )
        session = exported.sessions[name]
        assert [each.shape for each in session.get_inputs()] == [
            each["shape"] for each in part["inputs"]
        ]


@pytest.mark.slow
def test_only_the_encoder_contains_the_encoder_weights(exported):
    for name in ("start", "step"):
        assert not [key for key in exported.programs[name].state_dict if "encoder" in key]


@pytest.mark.slow
def test_start_and_step_contain_only_weights_that_they_use(exported):
    start, step = (exported.programs[name] for name in ("start", "step"))
    assert "model.words.weight" in step.state_dict
    assert "model.words.weight" not in start.state_dict
    for program in (start, step):
        used = {
            spec.target
            for spec, node in zip(
                program.graph_signature.input_specs, program.graph.nodes, strict=False
            )
            if node.users
        }
        assert program.state_dict.keys() <= used


@pytest.mark.slow
def test_the_files_name_no_directory_of_the_exporter(exported):
    for path in [*exported.onnx.iterdir(), *exported.torch.iterdir()]:
        contents = [path.read_bytes()]
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        for content in contents:
            for directory in (ROOT, Path.home(), Path(sys.prefix), Path(torch.__file__).parent):
                assert str(directory).encode() not in content, path


def awkward_images(directory):
    """An image for each rule by which an image becomes RGB."""
    drawn = np.zeros((30, 50, 4), np.uint8)
    drawn[:, :25] = (220, 30, 30, 255)
    drawn[5:20, 25:] = (40, 60, 230, 90)
    colours = Image.fromarray(drawn)
    exif = Image.Exif()
    exif[274] = 6  # orientation
    colours.convert("RGB").save(directory / "turned.jpg", exif=exif)
    colours.save(directory / "transparent.png")
    colours.convert("P").save(directory / "palette.gif", transparency=0)
    ramp = np.linspace(0, 65535, 1500).astype(np.uint16).reshape(30, 50)
    Image.fromarray(ramp).save(directory / "sixteen.png")
    return sorted(directory.iterdir())


def test_the_script_in_the_docs_has_the_pixels_of_the_library(tmp_path):
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"(?ms)^def pixels\(.*?(?=^def )", text)
    (tmp_path / "images").mkdir()
    transform = Transform(32)
    names = {"np": np, "Image": Image, "ImageOps": ImageOps, "spec": {"image": asdict(transform)}}
    exec(source, names)
    for path in awkward_images(tmp_path / "images"):
        expected = transform.batch([load_image(path)]).numpy()
        np.testing.assert_allclose(names["pixels"](path), expected, atol=1e-6, err_msg=path.name)


def test_the_description_gives_each_rule_of_the_page():
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    rules = export.image_rules(Transform(32))
    named = re.findall(
        r"(?m)^\| `(orientation|sixteen_bit|transparency|mode|resize|values)` ", text
    )
    assert set(rules) == {*named, "size", "mean", "std"}


@pytest.mark.slow
def test_a_directory_is_all_that_its_programs_need(exported, tmp_path):
    """Weights are in the programs, where torch.onnx.export by default writes a second file."""
    for directory, ending in ((exported.onnx, "onnx"), (exported.torch, "pt2")):
        names = {path.name for path in directory.iterdir()}
        assert names == {"captioner.json", *(f"{n}.{ending}" for n in exported.programs)}
    for name in exported.programs:
        alone = shutil.copy(exported.onnx / f"{name}.onnx", tmp_path)
        onnxruntime.InferenceSession(alone)
        saved = onnx.load(alone, load_external_data=False)
        assert not any(tensor.external_data for tensor in saved.graph.initializer)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["by_onnx", "by_torch"])
def test_nan_is_not_hidden(exported, runtime):
    """NaN in one image's features is NaN in all of its scores, and in no other image's.

    The programs return scores and leave the choice to the caller, because ONNX Runtime's ArgMax
    passes over NaN, unlike torch's.
    """
    run, model = getattr(exported, runtime), exported.captioner.model
    side = exported.captioner.transform.size
    with torch.no_grad():
        features = model.encoder(torch.zeros(2, 3, side, side)).contiguous()
    features[1, 0, 0, 0] = torch.nan
    started = run("start", features=features.numpy())
    outputs = run("step", tokens=np.ones((2, 1), np.int64), **started)
    assert np.isfinite(outputs["scores"][0]).all()
    assert np.isnan(outputs["scores"][1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["by_onnx", "by_torch"])
def test_ties_stay_ties(tied, runtime):
    """Words with equal weights get equal scores, up to the rounding of torch's own products."""
    run, side = getattr(tied, runtime), tied.captioner.transform.size
    noise = np.random.default_rng(0).normal(size=(3, 3, side, side)).astype(np.float32)
    inputs = run("start", features=run("encoder", pixels=noise)["features"])
    scores = run("step", tokens=np.ones((3, 1), np.int64), **inputs)["scores"]
    first, *others = tied.words
    np.testing.assert_allclose(
        scores[..., others], scores[..., [first] * len(others)], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_program_in_the_docs_with_ties(tied, beam_size, tmp_path, tmp_path_factory):
    """Which of the words with equal weights is chosen depends on rounding, and nothing else."""
    image = sorted((tiny.data(tmp_path_factory) / "val").iterdir())[0]
    options = {"method": "greedy"} if beam_size == 1 else {"beam_size": beam_size}
    expected = " ".join(tied.captioner.caption(image, **options).words)
    found = by_docs(tied.onnx, image, beam_size, tmp_path)
    colour = re.compile("|".join(rf"\b{name}\b" for name in tiny.COLOURS))
    assert colour.sub("COLOUR", found) == colour.sub("COLOUR", expected)
    assert colour.search(expected)


@pytest.mark.slow
@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_program_in_the_docs(exported, beam_size, tmp_path, tmp_path_factory):
    """It gives the library's captions in a process without torch and captioner."""
    images = sorted((tiny.data(tmp_path_factory) / "val").iterdir())[:3]
    options = {"method": "greedy"} if beam_size == 1 else {"beam_size": beam_size}
    captions = exported.captioner.caption(images, **options)
    assert len({caption.text for caption in captions}) == 3
    for image, caption in zip(images, captions, strict=True):
        assert by_docs(exported.onnx, image, beam_size, tmp_path) == " ".join(caption.words)


def by_docs(directory, image, beam_size, workdir):
    """The caption by the program in the docs."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    isolation = "import sys\nsys.modules.update(torch=None, captioner=None)\n"
    (workdir / "onnx_caption.py").write_text(isolation + program)
    done = subprocess.run(
        [sys.executable, "-I", "onnx_caption.py", directory, image, str(beam_size)],
        cwd=workdir,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout.rstrip("\n")


# ---- the command and its errors -----------------------------------------------------------------


@pytest.fixture
def run(tmp_path_factory):
    return str(tiny.run(tmp_path_factory, attention=False))


@pytest.mark.slow
def test_the_command_exports_an_ensemble(tmp_path, tmp_path_factory, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    runs = [str(tiny.run(tmp_path_factory, attention=attention)) for attention in (True, False)]
    capsys.readouterr()  # discard the output of training
    commands.main(["export", *runs, "--onnx", "empty", "--torch", "new/programs"])
    assert capsys.readouterr().out == "written: empty\nwritten: new/programs\n"
    for directory, ending in (("empty", "onnx"), ("new/programs", "pt2")):
        names = sorted(path.name for path in Path(directory).iterdir())
        assert names == ["captioner.json", *(f"{n}.{ending}" for n in ("encoder", "start", "step"))]
    image = tiny.data(tmp_path_factory) / "val" / "101.png"
    caption = Captioner.from_pretrained(runs, "cpu").caption(image)
    assert by_docs(tmp_path / "empty", image, 3, tmp_path) == caption.text


def test_nothing_is_overwritten(run, tmp_path):
    (tmp_path / "notes").write_text("keep")
    for path in (tmp_path, tmp_path / "notes"):
        with pytest.raises(InputError, match=f"{path} .*; choose another directory"):
            commands.main(["export", run, "--onnx", str(path)])
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_nothing_to_write(run):
    with pytest.raises(InputError, match="pass --onnx DIR or --torch DIR"):
        commands.main(["export", run])


def test_without_the_extra(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        InputError,
        match=r"--onnx needs onnxscript; run pip install 'captioner\[onnx\]'",
    ):
        commands.main(["export", run, "--onnx", str(tmp_path / "new")])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.slow
def test_a_failure_leaves_no_directory(run, tmp_path, monkeypatch, error):
    def fail(_, path):
        Path(path).write_text("half")
        if path.name == "step.pt2":
            raise error

    monkeypatch.setattr(torch.export, "save", fail)
    message = f"{tmp_path / 'new'} cannot be written: .*No space left on device"
    with (
        pytest.raises(InputError, match=message)
        if isinstance(error, OSError)
        else pytest.raises(KeyboardInterrupt)
    ):
        commands.main(["export", run, "--torch", str(tmp_path / "new")])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_backbones_of_timm(name, tmp_path, tmp_path_factory, monkeypatch):
    """The exported encoder gives the library's features, and the captions are the library's."""
    pytest.importorskip("timm", reason="the extra timm is not installed")
    monkeypatch.chdir(tmp_path)
    flags = f"--attention --epochs 1 --batch-size 8 --encoder timm:{name} {tiny.PLAIN}"
    flags += " --hidden-size 16 --embedding-size 16 --min-count 1 --image-size 64"
    train.main(["--data", str(tiny.data(tmp_path_factory)), "--run", "timm", *flags.split()])
    made = Exported(Captioner.from_pretrained("checkpoints/timm", "cpu"), tmp_path)
    pixels = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = made.captioner.model.encoder(pixels)
    assert made.description["image"]["mean"] == list(made.captioner.transform.mean)
    for run in (made.by_onnx, made.by_torch):
        assert_close(run("encoder", pixels=pixels.numpy())["features"], features)
