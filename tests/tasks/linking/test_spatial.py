"""Training the spatial embedding: sampling of labels, held-out labels, resuming, options."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import captioner
import train
from captioner import Linker, TrainConfig
from captioner.__main__ import main
from captioner.checkpoints import checkpoint
from captioner.data.dataset import CaptionData, Example
from captioner.data.labels import ImageLabels, load_labels
from captioner.data.readers import read_captions
from captioner.errors import InputError, Interrupted
from captioner.tasks.linking.options import SpatialTaskOptions
from captioner.tasks.linking.spatial import SpatialJob, build_label_vectors, sample_labels
from tests.support import tiny
from tests.support.interrupting import assert_same_run, interrupt_at

OPTIONS = {
    **{"image_size": 32, "device": "cpu", "workers": 0, "precision": "float32", "curves": False},
    **{"text_min_count": 1, "text_dimensions": 8, "min_images": 1, "batch_size": 8, "epochs": 2},
    **{"heatmaps": 0, "blocks": 2},
}


def flags(**options):
    words = ["--system", "spatial"]
    for name, value in options.items():
        flag = name.replace("_", "-")
        words += [f"--no-{flag}"] if value is False else [f"--{flag}", str(value)]
    return words


@pytest.fixture
def colours(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tiny.data(tmp_path_factory)


def train_python(data, **options):
    values = OPTIONS | options
    return captioner.train(TrainConfig.from_options(system="spatial", data=data, **values))


def test_sampled_labels_are_all_present_ones_and_random_absent_ones():
    names = tuple("abcdefghij")
    labels = ImageLabels(names, (np.array([2, 5]),), (np.array([0, 7]),))
    drawn = set()
    for seed in range(50):
        ids, present = sample_labels(labels, 0, 5, np.random.default_rng(seed))
        assert present == 2
        assert ids[:2].tolist() == [2, 5]
        assert len(set(ids.tolist())) == 5
        drawn.update(ids[2:].tolist())
    assert drawn == {1, 3, 4, 6, 8, 9}
    few, present = sample_labels(labels, 0, 1, np.random.default_rng(0))
    assert (few.tolist(), present) == ([2, 5], 2)
    every, _ = sample_labels(labels, 0, 50, np.random.default_rng(0))
    assert len(every) == 8


def test_label_vectors_are_centred_unit_vectors(colours):
    data = read_captions(colours)
    options = SpatialTaskOptions(text_vectors=("lsa",), text_min_count=1, text_dimensions=5)
    words = build_label_vectors(options, data)
    np.testing.assert_allclose(np.linalg.norm(words.vectors, axis=1), 1, rtol=1e-5)
    known = dict(zip(words.words, words.vectors, strict=True))
    mean = known["red"] + known["here"]
    np.testing.assert_allclose(
        words.encode(["red here"])[0], mean / np.linalg.norm(mean), rtol=1e-5
    )
    captions = {w for e in data.split("train") for c in e.captions for w in c.split()}
    assert set(words.words) <= captions


def test_default_label_vectors_compare_the_images_whose_captions_use_words():
    captions = [("red ball", "it is round"), ("red sky",), ("blue sky",), ("blue sea",)] * 3
    examples = [Example(Path(f"{i}.png"), i, own, "train") for i, own in enumerate(captions)]
    unseen = Example(Path("x.png"), 99, ("green",), "val")
    data = CaptionData("x", "table", Path("x"), (*examples, unseen))
    words = build_label_vectors(SpatialTaskOptions(text_dimensions=4), data)
    assert set(words.words) == {"red", "ball", "it", "is", "round", "sky", "blue", "sea"}
    ball, round_, sea = words.encode(["ball", "round", "sea"])
    np.testing.assert_allclose(ball, round_, atol=1e-4)  # never in one caption, but in one image
    assert ball @ sea < 0.5
    weights = dict(zip(words.words, words.weights, strict=True))
    assert weights["ball"] > weights["red"]  # rarer


def test_held_out_labels_are_never_trained(colours, monkeypatch):
    """Their vectors are in no batch, but they can be scored."""
    words = sorted(
        {w for e in read_captions(colours).examples for c in e.captions for w in c.split()}
    )
    rows = np.random.default_rng(0).normal(size=(len(words), 12)).round(3)
    lines = [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, rows, strict=True)]
    Path("words.txt").write_text("\n".join(lines) + "\n")
    seen = []
    batches = SpatialJob.batches
    monkeypatch.setattr(
        SpatialJob,
        "batches",
        lambda self, epoch, first: (seen.append(b) or b for b in batches(self, epoch, first)),
    )
    options = {k: v for k, v in OPTIONS.items() if k != "text_dimensions"} | {"held_out": 0.3}
    options |= {"text_vectors": ("words.txt",), "run": "run", "data": colours}
    result = captioner.train(TrainConfig.from_options(system="spatial", **options))
    labels = load_labels(Path("checkpoints/run/best"))
    assert labels.held_out
    assert not {*labels.seen} & {*labels.held_out}
    linker = result.linker
    assert linker.known_labels == labels
    trained = np.concatenate([batch.vectors.flatten(0, 1).numpy() for batch in seen])
    for name in labels.held_out:
        (vector,) = linker.encode_texts([name])
        assert (trained @ vector).max() < 0.999
    for name in labels.seen:
        (vector,) = linker.encode_texts([name])
        assert (trained @ vector).max() > 0.999
    image = next((colours / "val").glob("*.png"))
    assert linker.labels(image, list(labels.held_out)).shape == (1, len(labels.held_out))


def test_resuming_is_exact(colours, monkeypatch):
    words = flags(data=colours, **OPTIONS)
    train.main([*words, "--run", "straight"])
    with monkeypatch.context() as patch:
        interrupt_at(3, signal.SIGTERM, patch, SpatialJob, "batches")
        with pytest.raises(Interrupted):
            train.main([*words, "--run", "stopped"])
    train.main([*words, "--run", "stopped", "--resume"])
    assert_same_run(Path("checkpoints/straight"), Path("checkpoints/stopped"))


def test_an_earlier_run_provides_labels_and_vectors(colours):
    train_python(colours, run="a", epochs=1)
    dropped = ("text_min_count", "text_dimensions", "min_images")
    again = {k: v for k, v in OPTIONS.items() if k not in dropped}
    train.main(flags(data=colours, run="b", start_from="checkpoints/a", **again))
    assert load_labels(Path("checkpoints/a/best")) == load_labels(Path("checkpoints/b/best"))


def test_labels_from_tags(colours):
    rows = [
        f"{path.name},thing; {'bright light' if i % 2 else 'dark'}"
        for i, path in enumerate(sorted((colours / "train").glob("*.png")))
    ]
    Path("words.txt").write_text(
        "".join(
            f"{word} 1 {i} 0.5\n"
            for i, word in enumerate(("thing", "bright", "light", "dark", "red", "is", "all"))
        )
    )
    Path("captions.txt").write_text("")
    Path("tags.csv").write_text("image,tags\n" + "\n".join(rows))
    with pytest.raises(InputError, match=r"training needs at least 2 labels that .*, got 0; "):
        train_python(colours, run="x", tags="tags.csv")
    rows = [
        row.replace("thing", "red").replace("bright light", "all is").replace("dark", "is")
        for row in rows
    ]
    Path("tags.csv").write_text("image,tags\n" + "\n".join(rows))
    train_python(colours, run="tags", tags="tags.csv")
    assert set(load_labels(Path("checkpoints/tags/best")).seen) == {"red", "all is", "is"}
    stored = checkpoint.load(Path("checkpoints/tags")).config["spatial"]
    assert stored["tags"] == "tags.csv"


def test_training_on_a_table_of_tags(colours):
    """Tags of several words are one label, in training and in evaluation."""
    lines = ["image,tags,split"]
    for split in ("train", "val"):
        for i, path in enumerate(sorted((colours / split).glob("*.png"))):
            tags = "deep water|sky" if i % 2 else "sky|grass"
            lines.append(f"{split}/{path.name},{tags},{split}")
    for split in ("train", "val"):
        shutil.copytree(colours / split, f"photos/{split}")
    table = Path("photos/tags.csv")
    table.write_text("\n".join(lines) + "\n")
    train_python(table, run="tagged", epochs=1)
    assert set(load_labels(Path("checkpoints/tagged/best")).names) == {
        "deep water",
        "sky",
        "grass",
    }
    main(["evaluate", "--checkpoint", "checkpoints/tagged", "--split", "val", "--workers", "0"])
    scores = json.loads(Path("checkpoints/tagged/evaluation-val/scores.json").read_text())
    assert set(scores["labels"]["seen"]["average_precision"]) == {"deep water", "sky", "grass"}
    assert scores["labels"]["seen"]["average_precision"]["sky"] == 1  # all images have it


def test_maps_and_a_projection_are_drawn(colours, capsys):
    train_python(colours, run="run", heatmaps=2, epochs=1)
    out = capsys.readouterr().out
    assert len(list(Path("checkpoints/run/maps").glob("*.png"))) == 2
    assert Path("checkpoints/run/projection.png").exists()
    assert "captioner localize" in out
    assert "--paint=" in out
    rows = [json.loads(x) for x in Path("checkpoints/run/log.jsonl").read_text().splitlines()]
    assert {"mAP_seen", "mAP_held_out", "rsum"} <= rows[0].keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_vectors": ("tf-idf",)}, "got --text-vectors tf-idf; choose ppmi-image, "),
        (
            {"text_vectors": ("lsa", "word2vec")},
            "needs exactly one source of word vectors, got 2; pass",
        ),
        ({"text_vectors": ("gone.txt",)}, "gone.txt do not exist"),
        ({"tags": "gone.csv"}, "tags gone.csv do not exist"),
        ({"samples": 3}, "--samples has no effect with --system spatial"),
        ({"start_from": "x", "held_out": 0.1}, "--held-out cannot be combined with --start-from"),
        ({"held_out": 1.0}, "held_out must be at least 0 and below 1"),
        ({"labels_per_image": 1}, "labels_per_image must be at least 2"),
        ({"min_images": 99}, "at least 2 labels that occur in at least 99 images, got 0; lower"),
        ({"cell_dropout": 1.0}, "cell_dropout must be at least 0 and below 1"),
        ({"max_share": 1.0}, "max_share must be above 0 and below 1"),
        ({"image_vectors": "x.npy"}, "unknown training option 'image_vectors'"),
    ],
)
def test_options_that_are_refused(colours, options, message):
    own = ("text_dimensions", "text_min_count", "min_images")
    values = {k: v for k, v in OPTIONS.items() if k not in own}
    with pytest.raises(InputError, match=message):
        captioner.train(
            TrainConfig.from_options(system="spatial", data=colours, **values | options)
        )


def test_damaged_labels_are_refused(colours):
    train_python(colours, run="run", epochs=1)
    directory = Path("checkpoints/run/best")
    (directory / "labels.json").write_text("{}")
    with pytest.raises(InputError, match=r"labels.json does not match its checksum"):
        Linker.from_pretrained(directory, "cpu")
