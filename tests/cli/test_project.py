"""`captioner project`: which sentences it draws, in which groups, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Index, Linker
from captioner import __main__ as commands
from captioner.cli import project
from captioner.errors import InputError
from captioner.text.sentence_vectors import fit_counts, fit_tfidf, read_word_vectors
from tests.support import linking, tiny

ANIMALS = ["a dog runs", "the dog barks at a dog", "one dog sleeps", "a dog and a dog", "dog here"]
CARS = ["a red car", "this car is red", "car and red bus", "red car parked", "two red car doors"]
SENTENCES = [text for pair in zip(ANIMALS, CARS, strict=True) for text in pair]


@pytest.fixture(autouse=True)
def in_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n".join(SENTENCES) + "\n\n")


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of `draw_projection` after the path, which still draws."""
    calls, draw = [], project.draw_projection

    def recorded(path, *arguments):
        calls.append(arguments)
        draw(path, *arguments)

    monkeypatch.setattr(project, "draw_projection", recorded)
    return calls


@pytest.fixture
def projected(monkeypatch):
    """The vectors that are projected; nothing is drawn."""
    given = []
    monkeypatch.setattr(project, "project", lambda vectors, *_: given.append(vectors) or vectors)
    monkeypatch.setattr(project, "draw_projection", lambda *_: None)
    return given


def run(line):
    commands.main(["project", *line.split()])


def test_topics_are_drawn_and_printed(drawn, capsys, tmp_path):
    run("--texts a.txt --text-vectors tf-idf --topics 2")
    ((points, groups, labels, title),) = drawn
    assert points.shape == (10, 2)
    assert len(set(groups[::2])) == len(set(groups[1::2])) == 1
    assert groups[0] != groups[1]
    assert labels[groups[0]].startswith("dog, ")
    assert {"red", "car"} < set(labels[groups[1]].split(", "))
    assert title == "a.txt: 10 sentences (tf-idf; t-SNE, perplexity 3)"
    assert capsys.readouterr().out == (
        f"     5  {labels[0]}\n     5  {labels[1]}\n{title}\nprojection: projection.png\n"
    )
    with Image.open("projection.png") as image:
        assert image.format == "PNG"
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "projection.png"}


def test_the_same_command_draws_the_same(tmp_path):
    for name in ("a", "b"):
        run(f"--texts a.txt --topics 3 --limit 8 --output out/{name}.png")
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "out/b.png").read_bytes()


def test_values_of_a_column_are_groups(drawn, tmp_path):
    colors = ["red", "blue", "red", "green", "red", "blue"]
    rows = [{"Caption": s, "colour": c} for s, c in zip(SENTENCES, colors, strict=False)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("--texts a.jsonl --column Colour --method pca")
    ((_, groups, labels, title),) = drawn
    assert labels == ["red", "blue", "green"]
    assert groups.tolist() == [0, 1, 0, 2, 0, 1]
    assert title == "a.jsonl: 6 sentences (lsa; PCA)"


def test_rare_values_of_a_column_belong_to_no_group(drawn, tmp_path, capsys):
    numbers = [*range(14), *range(11, 14)]
    rows = "".join(f"{number},sentence {number % 5}\n" for number in numbers)
    (tmp_path / "a.csv").write_text(f"kind,caption\n{rows}")
    run("--texts a.csv --column kind --method pca")
    ((_, groups, labels, _),) = drawn
    assert labels == ["11", "12", "13", "0", "1", "10", "2", "3", "4", "5", "6", "7"]
    assert [labels[group] if group >= 0 else None for group in groups] == [
        None if number in (8, 9) else str(number) for number in numbers
    ]
    assert capsys.readouterr().out.startswith("     2  11\n")


def test_given_vectors_belong_to_the_sentences(drawn):
    vectors = np.random.default_rng(0).normal(size=(10, 3))
    np.save("v.npy", vectors)
    run("--texts a.txt --text-vectors v.npy --method pca --limit 6")
    ((points, _, _, title),) = drawn
    assert title == "a.txt: 6 of 10 sentences (v.npy; PCA)"
    chosen = vectors[project._sample(10, 6, 0)]
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    centred = chosen - chosen.mean(0)
    expected = centred @ np.linalg.svd(centred).Vh[:2].T
    np.testing.assert_allclose(abs(points), abs(expected), atol=1e-6)


def test_several_sources_are_concatenated(projected):
    own = np.arange(20.0).reshape(10, 2)
    np.save("v.npy", own)
    run("--texts a.txt --text-vectors counts v.npy tf-idf --limit 7")
    chosen = project._sample(10, 7, 0)
    drawn = [SENTENCES[i] for i in chosen]
    counts, tfidf = fit_counts(drawn, 1).encode(drawn), fit_tfidf(drawn, 1).encode(drawn)
    rows = (own / np.linalg.norm(own, axis=1, keepdims=True))[chosen]
    expected = np.concatenate([counts, rows, tfidf], axis=1)
    np.testing.assert_allclose(projected[0], expected, rtol=1e-6)


def test_word_vectors_and_their_unknown_words(projected, capsys):
    """As in training, words are those of the captions, and their vectors are centred."""
    Path("v.txt").write_text("dog 1 0\ncar 0 1\na 2 2\nred 3 1\n")
    run("--texts a.txt --text-vectors v.txt")
    expected = read_word_vectors(Path("v.txt"), SENTENCES, 1, weighted=False).encode(SENTENCES)
    np.testing.assert_array_equal(projected[0], expected)
    err = capsys.readouterr().err
    assert err.startswith(
        "note: 9 of 10 texts contain words that are unknown to the sentence encoder: "
    )
    assert "'is' (1)" in err


def test_embeddings_of_a_run(projected, tmp_path_factory, capsys):
    trained = linking.run(tmp_path_factory)
    texts = ["red and nothing", "blue here", "green", "white is all", "a black zebra"]
    Path("b.txt").write_text("\n".join(texts))
    run(f"--texts b.txt --topics 2 --checkpoint {trained}")
    linker = Linker.from_pretrained(trained, "cpu")
    expected, _ = linker.encode_texts(texts, on_unknown="return")
    np.testing.assert_allclose(projected[0], expected, atol=1e-6)
    captured = capsys.readouterr()
    assert "unknown to the sentence encoder: 'a' (1), 'zebra' (1)\n" in captured.err
    assert "b.txt: 5 sentences (linear-cca; t-SNE" in captured.out


def test_samples_are_random_and_in_order():
    first, second = (project._sample(1000, 50, seed) for seed in (0, 1))
    assert len(set(first)) == 50
    assert (np.diff(first) > 0).all()
    assert first.max() > 900
    assert first.tolist() != second.tolist()
    assert project._sample(7, 7, 0).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--texts gone.txt", r"gone\.txt cannot be read: No such file or directory"),
        ("--texts a.txt --column kind", r"a\.txt is plain text without columns; "),
        ("--texts a.txt --topics 0", "must be between 1 and 12, got 0"),
        ("--texts a.txt --topics 13", "must be between 1 and 12, got 13"),
        ("--texts a.txt --limit 0", "--limit must be at least 1, got 0"),
        ("--texts a.txt --limit 4", "projections and groups need at least 5 vectors, got 4"),
        ("--texts a.txt --seed -1", "--seed must be between 0 and 4294967295, got -1"),
        (
            "--texts a.txt --output a.pdf",
            r"--output must be a \.png file \(.jpg only with --mosaic\), got a\.pdf",
        ),
        (
            "--texts a.txt --output d.png",
            r"--output must be a \.png file \(.jpg only with --mosaic\), got the directory d\.png",
        ),
        ("--texts a.txt --text-vectors bert", "unknown sentence vectors 'bert'; choose counts, "),
        ("--texts a.txt --text-vectors gone.npy", r"vectors gone\.npy cannot be read: No such"),
        ("--texts a.txt --text-vectors a.npy", r"vectors a\.npy cannot be read: "),
        ("--texts a.txt --text-vectors o.npy", r"o\.npy cannot be read: .* Python objects"),
        (
            "--texts a.txt --text-vectors w.npy",
            "10 sentences; write one row per sentence, in order",
        ),
        ("--texts a.txt --text-vectors n.npy", "must be finite as float32, but row 0"),
        ("--texts same.txt", "all 6 are equal"),
    ],
)
def test_mistakes_write_nothing(line, message, tmp_path):
    (tmp_path / "d.png").mkdir()
    (tmp_path / "a.npy").write_text("text")
    (tmp_path / "same.txt").write_text("the same words\n" * 6)
    np.save("o.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    np.save("w.npy", np.zeros((9, 2)))
    np.save("n.npy", np.full((10, 2), np.nan))
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        run(line)
    assert set(tmp_path.iterdir()) == before


@pytest.fixture
def index(tmp_path_factory):
    """photos.index in the working directory, opened."""
    trained = linking.run(tmp_path_factory)
    shutil.copytree(tiny.data(tmp_path_factory) / "val", "photos")
    options = ["--cache", "cache", "--workers", "0", "--device", "cpu"]
    words = ["index", "photos", "--checkpoint", str(trained), "--output", "photos.index", *options]
    commands.main(words)
    return Index.open("photos.index")


def test_images_of_an_index_are_named_by_known_words(index, projected, capsys):
    run("photos.index --topics 2 --seed 1")
    np.testing.assert_array_equal(projected[0], index.rows)
    out = capsys.readouterr().out
    sizes, labels = zip(*(line.split(None, 1) for line in out.splitlines()[-4:-2]), strict=True)
    assert sum(map(int, sizes)) == len(index)
    words = set(index.linker.texts.words)
    assert all(set(label.split(", ")) <= words for label in labels)
    assert f"photos.index: {len(index)} images (t-SNE, perplexity 2)\nprojection: " in out


@pytest.mark.parametrize("center", [False, True])
def test_images_and_sentences_in_one_space(index, projected, capsys, center):
    Path("b.txt").write_text("red here\nblue and black\ngreen zebra\nzebra\n")
    run("photos.index --texts b.txt --method pca" + " --center" * center)
    texts, _ = index.linker.encode_texts(
        ["red here", "blue and black", "green zebra"], on_unknown="return"
    )
    images = np.asarray(index.rows, np.float64)
    if center:
        images, texts = images - images.mean(0), texts - texts.mean(0)
    np.testing.assert_allclose(projected[0], np.concatenate([images, texts]), atol=1e-6)
    out = capsys.readouterr().out
    assert "     3  sentences\n" in out
    note = "means subtracted" if center else "means kept"
    assert f"photos.index: {len(index)} images; b.txt: 3 of 4 sentences ({note}; PCA)" in out


def test_an_index_of_texts(tmp_path_factory, capsys):
    checkpoint = str(linking.run(tmp_path_factory))
    words = ["--texts", "--checkpoint", checkpoint, "--output", "texts.index"]
    commands.main(["index", *words, "--device", "cpu"])
    run("texts.index --method pca --topics 2")
    out = capsys.readouterr().out
    assert "\ntexts.index: 22 texts (PCA)\n" in out
    with pytest.raises(
        InputError, match=r"^texts\.index contains texts, not images; omit --mosaic"
    ):
        run("texts.index --mosaic 300 --output a.png")


def test_a_mosaic_has_the_images_of_the_index(index, capsys):
    broken = Path(index.paths[0])
    broken.write_bytes(b"")
    run("photos.index --mosaic 300 --method pca --output out/a.jpg")
    captured = capsys.readouterr()
    assert "mosaic: out/a.jpg" in captured.out
    assert str(broken) in captured.err
    assert "1 of 7 images could not be read and are drawn in grey" in captured.err
    assert f"photos.index: {len(index)} images (PCA)\n" in captured.out
    with Image.open("out/a.jpg") as image:
        assert image.size == (300, 300)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "^there is nothing to draw; pass an index, or sentences with --texts$"),
        ("a.index --texts a.txt --mosaic 300", "--mosaic needs an index without --texts; omit"),
        ("--texts a.txt --mosaic 300", "--mosaic needs an index without --texts; omit"),
        ("a.index --center", "--center needs both an index and --texts"),
        ("a.index --column split", "--column needs --texts without an index"),
        ("a.index --text-vectors lsa", "--text-vectors needs --texts without an index"),
        ("a.index --mosaic 300 --output a.pdf", r"must be a \.png, \.jpg or \.jpeg file"),
        ("a.index", "a.index is not an index"),
        ("--texts a.txt --column a --topics 2", "has no effect with --column; omit it$"),
        ("a.index --texts a.txt --topics 8", "has no effect with an index and --texts; omit it$"),
        ("a.index --mosaic 300 --checkpoint x", "^--checkpoint has no effect with --mosaic, which"),
        ("a.index --mosaic 300 --topics 8", r"^--topics \(or --clusters\) has no effect with --mo"),
    ],
)
def test_options_that_do_not_fit_an_index(line, message):
    with pytest.raises(InputError, match=message):
        run(line)


def test_sentences_without_a_known_word(index, monkeypatch):
    monkeypatch.setattr(project, "project", None)  # nothing is projected or drawn
    Path("b.txt").write_text("zebra\nwombat\n")
    message = r"^no sentence of b\.txt has a word that is known to the model of photos\.index; "
    with pytest.raises(InputError, match=message):
        run("photos.index --texts b.txt")
    assert len(index) == 7


def test_an_empty_group_is_printed(capsys):
    project._print_groups(np.zeros(3, np.int64), ["images", "sentences"])
    assert capsys.readouterr().out == "     3  images\n     0  sentences\n"


def test_groups_of_a_model_without_a_list_of_words(index, drawn, capsys, monkeypatch):
    monkeypatch.setattr(type(index.linker.texts), "words", ())  # as of a subword model
    run("photos.index --topics 2 --method pca")
    ((_, _, labels, _),) = drawn
    assert labels == ["group 1", "group 2"]
    assert (
        "note: groups are numbered, because the text model of the index has no list of words\n"
        in (capsys.readouterr().err)
    )


def test_a_mosaic_reads_its_images_only(index, monkeypatch):
    """Neither the checkpoint nor the other images of the index are needed."""
    monkeypatch.setattr(Index, "linker", None)
    monkeypatch.setattr(Index, "paths", None)
    read, items = [], Index.items
    monkeypatch.setattr(Index, "items", lambda *given: read.extend(given[1]) or items(*given))
    run("photos.index --mosaic 300 --limit 5 --output a.png")
    assert read == project._sample(len(index), 5, 0).tolist()


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (63, "^a mosaic of 7 images needs at least 64 pixels per side, got 63; "),
        (20001, "^a mosaic may have at most 20,000 pixels per side, got 20,001; draw a smaller"),
    ],
)
@pytest.mark.usefixtures("index")
def test_the_side_of_a_mosaic_is_checked_first(side, message, monkeypatch):
    monkeypatch.setattr(project, "project", None)
    with pytest.raises(InputError, match=message):
        run(f"photos.index --mosaic {side} --output a.png")
