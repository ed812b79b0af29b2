"""Caption the images of a split and score the captions; train.py and evaluate.py share it.

Decodes freely, each image once, never teacher-forced.
"""

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from .. import distributed
from ..data.dataset import Example
from ..data.demo.shapes import DrawnShape
from ..data.sources import Source
from ..decoding.decode import DecodeSettings, caption_batches
from ..decoding.hypothesis import Hypothesis
from ..decoding.options import DecodingOptions
from ..metrics import captions as metrics
from ..metrics.caption_statistics import Statistics, statistics
from ..metrics.pointing import Pointing, pointing
from ..models.base import CaptionModel
from ..text.tokenizer import join_words
from ..text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Evaluation:
    """What a split got: per image id the best hypothesis and its text, and the scores.

    hypotheses: empty where the captions came from a file. pointing: how often the map's maximum
    for a shape word lies in that shape's box, where the data tells the boxes (the demo's do) and
    the model attends; else None.
    """

    hypotheses: dict[int | str, Hypothesis]
    texts: dict[int | str, str]
    scores: metrics.Scores
    statistics: Statistics
    pointing: Pointing | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """Scores and statistics by name, as files hold them."""
        return {**self.scores.corpus, **self.statistics.numbers}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each image's id and scores by name, as files hold them."""
        each = self.scores.per_image
        return [
            {"image_id": id, **{name: round(values[i], 4) for name, values in each.items()}}
            for i, id in enumerate(self.scores.ids)
        ]

    def describe(self, references: Iterable[Sized]) -> str:
        """Scores, statistics, how all was computed and, where there is one, pointing accuracy.

        references: those of each image, which the signature tells the number of.
        """
        corpus = self.scores.corpus
        scores = "  ".join(f"{name} {value:.2f}" for name, value in corpus.items())
        lines = [scores, str(self.statistics), metrics.signature(references, corpus)]
        if self.scores.note:
            lines.append(self.scores.note)
        if self.pointing and self.pointing.count:
            lines.append(
                f"pointing accuracy {self.pointing.accuracy:.1f} % of {self.pointing.count} "
                f"shape words (chance {self.pointing.chance_level:.1f} %)"
            )
        return "\n".join(lines)


def evaluate(
    model: CaptionModel,
    vocabulary: Vocabulary,
    examples: Sequence[Example],
    images: Source,
    options: DecodingOptions,
    *,
    batch_size: int = 64,
    workers: int = 0,
    precision: str = "float32",
    shapes: Mapping[int | str, Sequence[DrawnShape]] | None = None,
    wanted: Sequence[str] | None = metrics.WITHOUT_JAVA,
    training: Iterable[str] | None = None,
) -> Evaluation:
    """Caption every example and score against all its captions.

    images: where index i is examples[i]. shapes: what the demo drew, by image id. wanted: the
    metrics, as `metrics.measure` takes them. training: the captions that the model learned from.
    Under torchrun each process captions its share, without padding, and all get the whole.
    """
    hypotheses = caption_all(
        model,
        examples,
        images,
        options,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
    )
    return assess(
        model, hypotheses, vocabulary, examples, shapes=shapes, wanted=wanted, training=training
    )


def texts_of(
    hypotheses: Mapping[int | str, Hypothesis], vocabulary: Vocabulary
) -> dict[int | str, str]:
    """The captions as text."""
    return {key: join_words(vocabulary.decode(h.tokens)) for key, h in hypotheses.items()}


def assess(
    model: CaptionModel,
    hypotheses: dict[int | str, Hypothesis],
    vocabulary: Vocabulary,
    examples: Sequence[Example],
    *,
    shapes: Mapping[int | str, Sequence[DrawnShape]] | None = None,
    wanted: Sequence[str] | None = metrics.WITHOUT_JAVA,
    training: Iterable[str] | None = None,
) -> Evaluation:
    """Score the captions that `caption_all` made by the model; the rest as in `evaluate`."""
    references = {example.id: example.captions for example in examples}
    pointed = None
    if shapes and model.has_attention:
        pointed = _pointing(hypotheses, vocabulary, shapes, model.encoder.offset)
    judged = judge(texts_of(hypotheses, vocabulary), references, wanted, training)
    return replace(judged, hypotheses=hypotheses, pointing=pointed)


def judge(
    texts: dict[int | str, str],
    references: Mapping[int | str, Sequence[str]],
    wanted: Sequence[str] | None = None,
    training: Iterable[str] | None = None,
) -> Evaluation:
    """Score captions wherever they came from; `wanted` and `training` as in `evaluate`."""
    scores = metrics.measure(texts, references, wanted)
    return Evaluation({}, texts, scores, statistics(texts, references, training))


def caption_all(
    model: CaptionModel,
    examples: Sequence[Example],
    images: Source,
    options: DecodingOptions,
    *,
    batch_size: int = 64,
    workers: int = 0,
    precision: str = "float32",
) -> dict[int | str, Hypothesis]:
    """The best hypothesis of each example, by id and in their order; all as in `evaluate`."""
    mine = range(len(examples))[distributed.rank() :: distributed.world_size()]
    batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
    found: dict[int | str, Hypothesis] = {}
    with tqdm(
        total=len(mine),
        desc="captions",
        unit="image",
        leave=False,
        disable=not distributed.is_first(),
    ) as bar:
        settings = DecodeSettings(options, batch_size, workers, precision)
        for batch, captions in caption_batches(model, images, batches, settings):
            for index, best in zip(batch, captions, strict=True):
                found[examples[index].id] = best[0]
            bar.update(len(batch))
    whole = {key: value for part in distributed.gather(found) for key, value in part.items()}
    return {example.id: whole[example.id] for example in examples}


def _pointing(
    hypotheses: Mapping[int | str, Hypothesis],
    vocabulary: Vocabulary,
    shapes: Mapping[int | str, Sequence[DrawnShape]],
    offset: float,
) -> Pointing:
    total = Pointing()
    for identity, hypothesis in hypotheses.items():
        if hypothesis.attention is not None and identity in shapes:
            words = vocabulary.decode(hypothesis.tokens)
            maps = hypothesis.attention[: len(words)]
            total += pointing(words, maps, shapes[identity], offset=offset)
    return total
