"""Evaluate relation checkpoints on a split: classifiers, baselines and reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.checkpoint import Checkpoint
from ...checkpoints.runs import evaluation_directory
from ...data.dataset import CaptionData, split_name
from ...data.relations import describe_labels, with_relations
from ...data.sources import ImageSource, Source
from ...data.thumbnails import load_thumbnails
from ...devices import pick_device
from ...errors import InputError
from ...evaluation.inputs import (
    SCORES_FILE,
    load_split,
    make_directory,
    open_features,
    write_json,
)
from ...evaluation.options import EvaluationRequest
from ...metrics.confusion import ClassScores, majority
from ...models.relation.model import RelationModel
from ...relation import RelationClassifier
from .baselines import draw_texts, svm_predictions
from .options import AUTOENCODER
from .reconstruction import Reconstruction, measure
from .scores import (
    LabelledSplit,
    classify_split,
    level_names,
    read_split,
    score_heads,
    shuffled_images,
)
from .sheet import SHEET, save_sheet

SHEET_PAIRS = 12
Scores = dict[str, ClassScores]  # by head


@dataclass(frozen=True)
class Model:
    """A checkpoint to evaluate; `name` identifies it in the table."""

    name: str
    classifier: RelationClassifier
    is_autoencoder: bool


def evaluate_checkpoints(checkpoints: Sequence[Checkpoint], request: EvaluationRequest) -> None:
    """Print and save a table of the scores of checkpoints and baselines on one split.

    A classifier has one row for its images and, if there are several images, one for shuffled
    images; the difference shows how much the images help. For an autoencoder, a linear SVM is
    trained on its article embeddings, and the reconstructions are measured and drawn. The last row
    predicts the most frequent level of the split. Without labels in the split, there is no table.
    Raises InputError for user errors, among them checkpoints whose heads differ.
    """
    options, first = request.evaluation, checkpoints[0]
    split = split_name(options.split)
    pick_device(request.runtime.device)  # raises InputError before images are decoded
    models = [_load(each, request.runtime.device) for each in checkpoints]
    heads = models[0].classifier.model.options.heads
    for model in models:
        if (other := model.classifier.model.options.heads) != heads:
            raise InputError(
                f"{model.name} has the heads {other}, but {models[0].name} has {heads}; evaluate "
                "them one by one"
            )
    directory = options.output or evaluation_directory(first.path, split)
    make_directory(directory, "--output")
    loaded, _ = load_split(options, first.config, split)
    data = with_relations(loaded)
    print(f"{data.name}, {split} split, {len(data.split(split)):,} images")
    print("\n".join(describe_labels(data.split(split))))
    evaluation = _Evaluation(data, split, request)
    rows: dict[str, Scores] = {}
    content: dict[str, Any] = {}
    for model in models:
        rows |= evaluation.classified(model)
        if model.is_autoencoder:
            content[f"{model.name} reconstruction"] = evaluation.reconstruct(model, directory)
    rows |= evaluation.majority(models[0])
    print(describe_table(rows))
    content["rows"] = {name: _content(scores) for name, scores in rows.items()}
    write_json(directory / SCORES_FILE, content)
    print(f"scores: {directory}")


class _Evaluation:
    """The evaluation of models on one split."""

    def __init__(self, data: CaptionData, split: str, request: EvaluationRequest) -> None:
        self.data, self.split, self.request = data, split, request

    def classified(self, model: Model) -> dict[str, Scores]:
        """Return the rows of a classifier, or the row of the SVM on an autoencoder's embeddings.

        There are none if no text of the split has a label.
        """
        own = self._read(model, self.split)
        if not len(own.labelled):
            return {}
        images = self._images(model, self.split)
        if model.is_autoencoder:
            return {f"linear SVM on {model.name}": self._svm(model, images, own)}
        rows = {model.name: classify_split(model.classifier, images, own)}
        if len(own.examples) > 1:
            order = shuffled_images(len(own.examples))
            shuffled = classify_split(model.classifier, images, own, order)
            rows[f"{model.name}, images shuffled"] = shuffled
        return rows

    def majority(self, model: Model) -> dict[str, Scores]:
        """Return the row that predicts each head's most frequent level; none without labels."""
        own = self._read(model, self.split)
        heads = model.classifier.heads
        predicted = [np.zeros(len(own.labelled), int) for _ in heads]
        levels = {head.name: level_names(head) for head in heads}
        scores = score_heads(own, heads, predicted)
        row = {n: majority(s.truth, s.groups, levels[n]) for n, s in scores.items()}
        return {"most frequent level": row} if row else {}

    def reconstruct(self, model: Model, directory: Path) -> dict[str, float]:
        """Print how well an autoencoder reconstructs, before and after training; return the scores.

        Draws the sheet of reconstructions in the directory.
        """
        own, images = self._read(model, self.split), self._images(model, self.split)
        size = model.classifier.model.options.thumbnail_size
        workers = self.request.evaluation.workers
        thumbnails = load_thumbnails([e.path for e in own.examples], size, workers)

        def measured(classifier: RelationClassifier) -> Reconstruction:
            rows = own.pairs.tolist()
            return measure(classifier, images, own.store, own.image_of_text, rows, thumbnails)

        after = measured(model.classifier)
        before = measured(_untrained(model.classifier))
        print(f"{model.name}, before training:\n{before.describe()}")
        print(f"{model.name}, after training:\n{after.describe()}")
        save_sheet(directory / SHEET, model.classifier, images, own, SHEET_PAIRS)
        print(f"reconstructions: {directory / SHEET}")
        return {**after.numbers, "unigram": after.unigram, "perplexity_before": before.perplexity}

    def _svm(self, model: Model, images: Source, own: LabelledSplit) -> Scores:
        training = self._read(model, "train")
        rows, classifier = draw_texts(training.labelled), model.classifier
        heads = classifier.heads
        embedded = classifier.embed(
            self._images(model, "train"), training.store, training.image_of_text, rows.tolist()
        )
        scored = classifier.embed(images, own.store, own.image_of_text, own.labelled.tolist())
        predicted = svm_predictions(heads, embedded, training.labels[rows], scored)
        return score_heads(own, heads, predicted)

    def _read(self, model: Model, split: str) -> LabelledSplit:
        classifier = model.classifier
        return read_split(self.data.split(split), classifier.reader, classifier.heads)

    def _images(self, model: Model, split: str) -> Source:
        """Return a split's stored features if the encoder is frozen, and its images otherwise."""
        classifier, examples = model.classifier, self.data.split(split)
        encoder = classifier.model.encoder
        assert encoder is not None
        if not encoder.frozen:
            return ImageSource([example.path for example in examples], classifier.transform)
        kind, options = classifier.model.features, self.request.evaluation
        return open_features(encoder, classifier.transform, examples, options, kind)


def describe_table(rows: dict[str, Scores]) -> str:
    """Return the rows as a table of accuracies with 95 % intervals and macro F1 for each head.

    Below the table are the accuracy of the first row minus that of each other row, and the
    confusion matrices of the first row. Without rows, the text says that there are no labels.
    """
    if not rows:
        return "no text of the split has labels"
    names = list(next(iter(rows.values())))
    width = max(map(len, rows))
    head = "".join(f"  {f'{name}: accuracy, macro F1':<34}" for name in names)
    lines = [f"{'':{width}}{head}".rstrip()]
    for title, scores in rows.items():
        cells = (f"{scores[n].interval:.3f}  {scores[n].macro_f1:.3f}" for n in names)
        lines.append(f"{title:{width}}" + "".join(f"  {cell:<34}" for cell in cells).rstrip())
    (best_title, best), *others = rows.items()
    lines.append(f"accuracy of {best_title} minus that of")
    for title, scores in others:
        cells = (f"{best[name].difference(scores[name]):+.3f}" for name in names)
        lines.append(f"{title:{width}}" + "".join(f"  {cell:<34}" for cell in cells).rstrip())
    for title, scores in rows.items():
        for name, own in scores.items() if title == best_title else ():
            lines += [f"{name}, {title}, {len(own.truth):,} texts:", own.describe()]
    return "\n".join(lines)


def _content(scores: Scores) -> dict[str, Any]:
    """Return the scores of a row in a form that JSON can store."""
    return {
        name: {
            "accuracy": own.accuracy,
            "interval": [own.interval.low, own.interval.high],
            "macro_f1": own.macro_f1,
            "classes": list(own.classes),
            "confusion": own.confusion.tolist(),
        }
        for name, own in scores.items()
    }


def _load(checkpoint: Checkpoint, device: str | None) -> Model:
    classifier = RelationClassifier.from_checkpoint(checkpoint, device)
    path = checkpoint.path
    name = path.parent.name if path.name in ("best", "last") else path.name
    recipe = checkpoint.config["relation"].get("recipe")
    return Model(name, classifier, recipe == AUTOENCODER)


def _untrained(classifier: RelationClassifier) -> RelationClassifier:
    """Return a copy with random weights, but the same image encoder and training statistics."""
    model = classifier.model
    assert model.encoder is not None
    size, encoder = model.vocabulary_size, model.encoder
    fresh = RelationModel(encoder.channels, size, model.options, encoder)
    kept = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith("encoder.") or name in dict(model.named_buffers())
    }
    fresh.load_state_dict({**fresh.state_dict(), **kept})
    fresh.to(classifier.device)
    return RelationClassifier(fresh, classifier.reader, classifier.transform)
