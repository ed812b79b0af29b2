"""Caption the images of one split and score the captions.

Both training and evaluation use this module. Captions are decoded without teacher forcing, and
each image is encoded only once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import distributed
from ..console import progress_bar
from ..data.dataset import Example
from ..data.demo.shapes import DrawnShape
from ..data.sources import Source
from ..decoding.decode import DecodeSettings, caption_batches
from ..decoding.hypothesis import Hypothesis
from ..metrics.caption_statistics import Statistics, statistics
from ..metrics.captions import WITHOUT_JAVA, Scores, compute_scores, signature
from ..metrics.pointing import Pointing, pointing
from ..models.base import CaptionModel
from ..text.tokenizer import WORDS, Tokenizer
from ..text.vocabulary import Vocabulary


@dataclass(frozen=True)
class ScoringSettings:
    """The scores to compute and the data that some of them require.

    metrics: as in `compute_scores`; None for all available metrics. training_captions: captions
    that the model was trained on, for novelty; None if not available. tokenizer: None uses
    the tokenizer of the vocabulary, or "words" if there is no vocabulary.
    """

    metrics: Sequence[str] | None = WITHOUT_JAVA
    training_captions: Collection[str] | None = None
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class Evaluation:
    """The captions of a split and their scores.

    hypotheses: best hypothesis of each image, by id; empty if only the texts were scored.
    texts: captions by image id. signature: how the scores were computed. pointing: pointing
    accuracy (see `measure_pointing`); None if it was not measured.
    """

    hypotheses: dict[int | str, Hypothesis]
    texts: dict[int | str, str]
    scores: Scores
    statistics: Statistics
    signature: str
    pointing: Pointing | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """Scores and statistics by name, as stored in scores.json."""
        return {**self.scores.corpus, **self.statistics.numbers}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Each image's id and scores by name, as stored in scores.json."""
        per_image = self.scores.per_image
        return [
            {"image_id": id, **{name: round(values[i], 4) for name, values in per_image.items()}}
            for i, id in enumerate(self.scores.ids)
        ]

    def describe(self) -> str:
        """Return the scores, statistics, signature and any pointing accuracy as lines of text."""
        corpus = self.scores.corpus
        scores = "  ".join(f"{name} {value:.2f}" for name, value in corpus.items())
        lines = [scores, str(self.statistics), self.signature]
        if self.scores.note:
            lines.append(self.scores.note)
        if self.pointing and self.pointing.count:
            lines.append(
                f"pointing accuracy {self.pointing.accuracy:.1f} % of {self.pointing.count} "
                f"shape words (chance {self.pointing.chance_level:.1f} %)"
            )
        return "\n".join(lines)


def evaluate_split(
    model: CaptionModel,
    vocabulary: Vocabulary,
    examples: Sequence[Example],
    images: Source,
    decoding: DecodeSettings,
    scoring: ScoringSettings = ScoringSettings(),
) -> Evaluation:
    """Caption every example and score the captions against all references.

    images: source whose i-th image belongs to examples[i]. Under torchrun, each process captions
    its share of the examples, without duplicates, and all processes return the complete result.
    """
    hypotheses = caption_split(model, examples, images, decoding)
    return score_hypotheses(vocabulary, examples, hypotheses, scoring)


def caption_split(
    model: CaptionModel, examples: Sequence[Example], images: Source, decoding: DecodeSettings
) -> dict[int | str, Hypothesis]:
    """Return the best hypothesis of each example, by id, in the order of the examples.

    images: as in `evaluate_split`. Under torchrun, the work is divided in the same way.
    """
    share = range(len(examples))[distributed.rank() :: distributed.world_size()]
    size = decoding.batch_size
    batches = [share[first : first + size] for first in range(0, len(share), size)]
    hypotheses: dict[int | str, Hypothesis] = {}
    with progress_bar(
        total=len(share),
        desc="captions",
        unit="image",
        shown=distributed.is_first(),
    ) as bar:
        for batch, n_best in caption_batches(model, images, batches, decoding):
            for index, (best, *_) in zip(batch, n_best, strict=True):
                hypotheses[examples[index].id] = best
            bar.update(len(batch))
    gathered = {id: each for part in distributed.gather(hypotheses) for id, each in part.items()}
    return {example.id: gathered[example.id] for example in examples}


def score_hypotheses(
    vocabulary: Vocabulary,
    examples: Sequence[Example],
    hypotheses: dict[int | str, Hypothesis],
    scoring: ScoringSettings = ScoringSettings(),
) -> Evaluation:
    """Score the hypotheses that `caption_split` returned for the examples."""
    references = {example.id: example.captions for example in examples}
    scoring = replace(scoring, tokenizer=scoring.tokenizer or vocabulary.tokenizer)
    result = score_captions(caption_texts(hypotheses, vocabulary), references, scoring)
    return replace(result, hypotheses=hypotheses)


def score_captions(
    texts: dict[int | str, str],
    references: Mapping[int | str, Sequence[str]],
    scoring: ScoringSettings = ScoringSettings(),
) -> Evaluation:
    """Score captions from any source against references; both are keyed by image id.

    The result has no hypotheses.
    """
    tokenizer = scoring.tokenizer or WORDS
    scores = compute_scores(texts, references, scoring.metrics, tokenizer)
    return Evaluation(
        {},
        texts,
        scores,
        statistics(texts, references, scoring.training_captions, tokenizer),
        signature(references.values(), scores.corpus, tokenizer.name),
    )


def caption_texts(
    hypotheses: Mapping[int | str, Hypothesis], vocabulary: Vocabulary
) -> dict[int | str, str]:
    """Return the captions as text, by image id."""
    join = vocabulary.tokenizer.join
    return {id: join(vocabulary.decode(each.tokens)) for id, each in hypotheses.items()}


def measure_pointing(
    evaluation: Evaluation,
    model: CaptionModel,
    vocabulary: Vocabulary,
    shapes: Mapping[int | str, Sequence[DrawnShape]],
) -> Evaluation:
    """Add the pointing accuracy of the attention maps to an evaluation of demo data.

    shapes: the shapes in each image, by image id. Without shapes or attention, the evaluation is
    returned unchanged.
    """
    if not shapes or not model.has_attention:
        return evaluation
    total = Pointing()
    for id, hypothesis in evaluation.hypotheses.items():
        if hypothesis.attention is not None and id in shapes:
            words = vocabulary.decode(hypothesis.tokens)
            maps = hypothesis.attention[: len(words)]
            total += pointing(words, maps, shapes[id], offset=model.encoder.offset)
    return replace(evaluation, pointing=total)
