"""Scores of queries and concepts, computed by hand for embeddings that are known exactly."""

import json
from pathlib import Path

import numpy as np
import pytest

import evaluate
from captioner import Linker
from captioner.data.dataset import Example
from captioner.data.images import Transform
from captioner.errors import InputError
from captioner.models.linking.options import RegressionOptions
from captioner.models.linking.regression import TextRegression
from captioner.models.linking.texts import TextReader
from captioner.tasks.linking.queries import score_concepts, score_queries
from captioner.text.sentence_vectors import WordSum
from tests.support import linking, tiny

WORDS = ("dog", "beach", "snow")


@pytest.fixture
def linker():
    """A linker in which word i is the unit vector i."""
    words = WordSum(WORDS, np.ones(3), np.eye(3))
    model = TextRegression(2, 3, RegressionOptions())
    return Linker(model, TextReader(sentences=words), Transform(32))


def examples(*captions):
    return [
        Example(i, Path(f"im{i}.jpg"), (text,), "test") for i, text in enumerate(captions, start=1)
    ]


def rows(*vectors):
    vectors = np.array(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


IMAGES = examples("a dog", "a dog on the beach", "beach", "nothing", "dogs", "a dog on two beaches")
VECTORS = rows([5, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0], [0, 0, 1])


def test_queries_are_scored_by_hand(linker):
    queries = ("dog", "dog + beach", "dog - beach", "snow", "dog + cat", "zebra - dog")
    found = score_queries(linker, VECTORS, IMAGES, queries)
    assert [each.query for each in found.queries] == ["dog", "dog + beach", "dog - beach"]
    assert found.left_out == {
        "snow": "no relevant image",
        "dog + cat": "unknown words",
        "zebra - dog": "unknown words",
    }
    dog, both, without = found.queries
    # dog: 5 (1), 1 (.98), 2 (.71) ties with 4 (wrong, so first), then 3 (wrong) ties with 6
    assert dog.precision == pytest.approx(3 / 5)
    assert dog.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    # dog + beach: 2 first; 6 last
    assert both.average_precision == pytest.approx((1 + 2 / 6) / 2)
    assert both.precision == pytest.approx(1 / 5)
    # dog - beach: 5 (.71), 1 (.55), 4 (.5); right are 1 and 5, also for dog alone
    assert without.kind == "negated"
    assert without.precision == without.alone == pytest.approx(2 / 5)
    assert without.chance == pytest.approx(2 / 6)


def test_a_query_is_compared_with_its_positive_terms_alone(linker):
    images = examples(*["a dog on a beach"] * 4, *["a dog"] * 3)
    vectors = rows(*[[1, 1, 0]] * 4, *[[1, -0.2, 1]] * 3)  # cosines with dog: .707 and .700
    (found,) = score_queries(linker, vectors, images, ("dog - beach",)).queries
    assert (found.precision, found.alone) == (3 / 5, 1 / 5)


def test_numbers_are_means_over_queries_of_a_kind(linker):
    found = score_queries(linker, VECTORS, IMAGES, ("dog", "beach", "dog + beach", "dog - beach"))
    by_name = {each.query: each for each in found.queries}
    simple = (by_name["dog"].precision + by_name["beach"].precision) / 2
    numbers = found.numbers
    assert numbers["P@5_simple"] == pytest.approx(simple)
    assert numbers["P@5_complex"] == by_name["dog + beach"].precision
    assert numbers["P@5"] == pytest.approx((2 * simple + numbers["P@5_complex"]) / 3)
    assert numbers["MAP"] == pytest.approx(
        np.mean([each.average_precision for each in found.queries[:3]])
    )
    assert numbers["P@5_negated_alone"] == pytest.approx(2 / 5)
    text = found.describe()
    assert "queries: P@5 " in text
    assert (
        "A - B: P@5 0.40 of images with A and without B; searching for A alone gives 0.40" in text
    )
    assert json.loads(json.dumps(found.content))["queries"][0]["query"] == "dog"


def test_the_standard_queries_are_the_default(linker):
    found = score_queries(linker, VECTORS, IMAGES)
    assert [each.query for each in found.queries] == [
        *("dog", "beach", "dog + beach", "beach - dog")
    ]
    assert "left out: water, bike" in found.describe().replace("snow, ", "")


def test_concepts_are_scored_by_annotations(linker):
    concepts = {"dog": {1, 4}, "dog_r1": {4}, "cat": {1}, "snow": {99}, "dog_beach": {2, 7}}
    found = score_concepts(linker, VECTORS, IMAGES, concepts)
    assert found.left_out == {"cat": "unknown words", "snow": "no relevant image"}
    # dog: 5 (wrong), 1, then 2 and 4 tie
    assert found.average_precision["dog"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.average_precision["dog_r1"] == pytest.approx(1 / 4)
    assert found.average_precision["dog_beach"] == pytest.approx(1)
    assert found.content["MAP"] == pytest.approx((1 / 2 + 1 / 4 + 1) / 3)
    assert found.describe().startswith("MAP 0.583 over 3 concepts\nleft out: concept cat")


def test_concepts_need_numbered_images(linker):
    unnamed = [Example(1, Path("dog.jpg"), ("a dog",), "test")]
    with pytest.raises(InputError, match=r"concepts need images named im1\.jpg, im2\.jpg"):
        score_concepts(linker, VECTORS[:1], unnamed, {"dog": {1}})


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return linking.run(tmp_path_factory)


def run_evaluation(run, *words):
    options = ("--split", "val", "--device", "cpu", "--workers", "0", "--output", "out")
    evaluate.main(["--checkpoint", str(run), *options, *words])
    return json.loads(Path("out/scores.json").read_text())


def test_evaluation_scores_queries_of_a_file_and_writes_a_page_of_failures(run, capsys):
    Path("queries.txt").write_text("red\nred - blue\nred + zebra\n")
    scores = run_evaluation(run, "--queries", "queries.txt", "--failures", "pages/wrong.html")
    queries = scores["search"]["queries"]
    assert [each["query"] for each in queries] == ["red", "red - blue"]
    assert scores["search"]["left_out"] == {"red + zebra": "unknown words"}
    assert 0 < queries[0]["P@5"] <= 0.2  # one of the seven images is red
    text = capsys.readouterr().out
    assert "queries: P@5" in text
    assert "failures: pages/wrong.html" in text
    page = Path("pages/wrong.html").read_text()
    assert page.count("<section>") == 2
    assert page.count("<li") == 8


def test_concepts_of_images_without_numbers_are_refused(run):
    Path("concepts").mkdir()
    Path("concepts/red.txt").write_text("1\n")
    with pytest.raises(InputError, match=r"concepts need images named im1\.jpg"):
        run_evaluation(run, "--concepts", "concepts")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--queries", "query file gone cannot be read: No such file"),
        ("--concepts", "gone contains no concepts"),
        ("--failures", "--failures: directory file cannot be created: "),
    ],
)
def test_missing_files_show_before_images_are_read(run, flag, message, monkeypatch):
    monkeypatch.setattr("captioner.tasks.linking.evaluation.load_split", None)
    Path("file").touch()
    with pytest.raises(InputError, match=message):
        run_evaluation(run, flag, "file/wrong.html" if flag == "--failures" else "gone")


def test_captioning_models_have_no_queries(tmp_path, tmp_path_factory, monkeypatch):
    run = tiny.run(tmp_path_factory, attention=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--queries has no effect on a 'captioning' model; omit"):
        run_evaluation(run, "--queries", "queries.txt")
