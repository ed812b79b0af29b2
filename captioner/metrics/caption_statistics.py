"""Caption statistics other than quality scores: length, vocabulary and repetition."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from ..text.tokenizer import WORDS, Tokenizer
from .captions import split_corpus

Id = TypeVar("Id", bound=Hashable)

# Words that a complete caption should not end with: determiners, prepositions, conjunctions,
# relative pronouns, auxiliaries. Words that can end a sentence (by, her, off, outside, that, up)
# are left out. In Flickr8k, 0.7 % of the references end with one of these words, mostly with "on"
# ("others look on").
DANGLING_ENDINGS = tuple(
    "a an the every my your his its our their whose "
    "of with in on to at from for into onto upon against among between toward towards during "
    "beside under over near along across through "
    "and or but nor as if than because while when where which who "
    "is are was were be been has have had will would could should".split()
)


@dataclass(frozen=True)
class Statistics:
    """Properties of the captions of a split.

    mean_length: mean number of words per caption. vocabulary_used: number of different words.
    function_endings: percentage of captions that end with one of DANGLING_ENDINGS. distinct: number
    of different captions per 100 captions. brevity_penalty: BLEU's brevity penalty, 0-1, for
    the whole corpus and the references closest in length; BLEU / brevity_penalty is BLEU without
    it. novelty: percentage of captions that are not among the training captions; None if the
    training captions are not available.
    """

    mean_length: float
    vocabulary_used: int
    function_endings: float
    distinct: float
    brevity_penalty: float
    novelty: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.mean_length:.2f} words per caption, {self.vocabulary_used} different words, "
            f"{self.function_endings:.1f} % end with a function word, "
            f"{self.distinct:.1f} % distinct, brevity penalty {self.brevity_penalty:.3f}"
            + ("" if self.novelty is None else f", {self.novelty:.1f} % novel")
        )

    @property
    def numbers(self) -> dict[str, float]:
        """The available values, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def statistics(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    training: Iterable[str] | None = None,
    tokenizer: Tokenizer = WORDS,
) -> Statistics:
    """Compute the statistics of captions.

    captions, references, tokenizer: as in `captions.compute_scores`. training: captions that the
    model was trained on. A caption is not novel if its letters and digits equal those of a training
    caption, regardless of case, spaces and punctuation. Raises InputError as
    `captions.split_corpus` does.
    """
    from nltk.translate.bleu_score import brevity_penalty, closest_ref_length

    hypotheses, split_references = split_corpus(captions, references, tokenizer)
    lengths = [len(words) for words in hypotheses]
    closest = map(closest_ref_length, split_references, lengths)
    dangling = sum(words[-1] in DANGLING_ENDINGS for words in hypotheses if words)
    training_keys = None if training is None else set(map(_normalise, training))
    novel = sum(_normalise(text) not in (training_keys or ()) for text in captions.values())
    return Statistics(
        mean_length=sum(lengths) / len(lengths),
        vocabulary_used=len({word for words in hypotheses for word in words}),
        function_endings=100.0 * dangling / len(hypotheses),
        distinct=100.0 * len(set(map(tuple, hypotheses))) / len(hypotheses),
        brevity_penalty=float(brevity_penalty(sum(closest), sum(lengths))),
        novelty=None if training_keys is None else 100.0 * novel / len(hypotheses),
    )


def _normalise(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
