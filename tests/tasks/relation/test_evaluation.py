"""The table of the paper: its rows against scikit-learn, its errors, and the reconstruction."""

import json

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import evaluate
from captioner import InputError, RelationClassifier
from captioner.data.readers import read_captions
from captioner.data.sources import ImageSource
from captioner.tasks.relation.baselines import svm_predictions
from captioner.tasks.relation.scores import read_split
from tests.support import linking, relation

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return [relation.run(tmp_path_factory), relation.run(tmp_path_factory, "autoencoder")]


@pytest.fixture(scope="module")
def results(runs, tmp_path_factory):
    """The directory with the results of all runs on the test split, and what was printed."""
    out = tmp_path_factory.mktemp("evaluation")
    words = ["--checkpoint", *map(str, runs), "--split", "val", "--output", str(out)]
    evaluate.main([*words, "--workers", "0", "--cache", str(out / "cache")])
    return out


def embeddings(run, data, split):
    """The article embeddings of a split's labelled texts, with their levels."""
    classifier = RelationClassifier.from_pretrained(run, "cpu")
    examples = read_captions(data).split(split)
    own = read_split(examples, classifier.reader, classifier.heads)
    images = ImageSource([example.path for example in examples], classifier.transform)
    rows = own.labelled
    return classifier.embed(images, own.store, own.image_of_text, rows.tolist()), own.labels[rows]


def test_the_rows_of_baselines_are_those_of_scikit_learn(runs, results, tmp_path_factory):
    rows = json.loads((results / "scores.json").read_text())["rows"]
    data = relation.data(tmp_path_factory)
    (train, train_labels), (val, val_labels) = (
        embeddings(runs[1], data, split) for split in ("train", "val")
    )
    for column, name in enumerate(("cmi", "sc")):
        known, true = train_labels[:, column] >= 0, val_labels[:, column] >= 0
        truth = val_labels[true, column]
        scaler = StandardScaler().fit(train[known])
        svm = LinearSVC(dual=False)
        svm.fit(scaler.transform(train[known]), train_labels[known, column])
        predicted = svm.predict(scaler.transform(val[true]))
        found = rows["linear SVM on autoencoder"][name]
        assert found["accuracy"] == accuracy_score(truth, predicted)
        assert found["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        dummy = DummyClassifier(strategy="most_frequent").fit(truth[:, None], truth)
        expected = dummy.predict(truth[:, None])
        found = rows["most frequent level"][name]
        assert found["accuracy"] == accuracy_score(truth, expected)
        assert found["macro_f1"] == pytest.approx(f1_score(truth, expected, average="macro"))


def test_every_row_has_the_same_texts(results):
    rows = json.loads((results / "scores.json").read_text())["rows"]
    assert list(rows) == [
        "relation",
        "relation, images shuffled",
        "linear SVM on autoencoder",
        "most frequent level",
    ]
    for name in ("cmi", "sc"):
        totals = [np.sum(row[name]["confusion"], 1).tolist() for row in rows.values()]
        assert all(total == totals[0] for total in totals)
        for row in rows.values():
            low, high = row[name]["interval"]
            assert low <= row[name]["accuracy"] <= high


def test_a_classifier_is_better_than_with_the_images_of_others(results):
    rows = json.loads((results / "scores.json").read_text())["rows"]
    for name in ("cmi", "sc"):
        own, shuffled = (
            rows[title][name]["accuracy"] for title in ("relation", "relation, images shuffled")
        )
        assert own > shuffled + 0.1


def test_reconstructions_are_measured_before_and_after_training(results):
    content = json.loads((results / "scores.json").read_text())["autoencoder reconstruction"]
    assert content["perplexity"] < content["unigram"] < content["perplexity_before"] * 2
    assert content["text_error"] == pytest.approx(content["perplexity"] / content["unigram"])
    assert (results / "reconstructions.png").stat().st_size > 1000


def test_the_table_is_printed(runs, tmp_path, capsys):
    words = ["--checkpoint", str(runs[0]), "--output", str(tmp_path), "--workers", "0"]
    evaluate.main([*words, "--split", "test", "--cache", str(tmp_path / "cache")])
    out = capsys.readouterr().out
    assert "test split, 8 images\ntest cmi: 0: 8  0.5: 8  1: 8\n" in out
    assert "cmi: accuracy, macro F1" in out
    assert "\nmost frequent level" in out
    assert "true, predicted" in out
    assert "SVM" not in out


def test_evaluations_that_are_refused(runs, tmp_path, tmp_path_factory):
    words = ["--output", str(tmp_path), "--workers", "0", "--cache", str(tmp_path / "cache")]
    other = linking.run(tmp_path_factory)
    with pytest.raises(InputError, match="was trained for 'linear', not 'relation'"):
        evaluate.main(["--checkpoint", str(runs[0]), str(other), *words])
    with pytest.raises(InputError, match="--queries has no effect on a 'relation' model; omit it"):
        evaluate.main(["--checkpoint", str(runs[0]), "--queries", "x.txt", *words])


def test_a_label_that_never_varies_is_predicted():
    predicted = svm_predictions(
        ["a"], np.zeros((3, 2), np.float32), np.array([[2], [2], [-1]]), np.zeros((4, 2))
    )
    assert predicted[0].tolist() == [2] * 4
