"""What captions are like, be they right or wrong: lengths, words, endings, repetitions."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from .captions import split_both

Id = TypeVar("Id", bound=Hashable)

# Determiners, prepositions, conjunctions with relatives, auxiliaries: words after which more must
# come. What may well end a sentence (by, her, off, outside, that, up) is not here. Of Flickr8k's
# references 0.7 % end in one of these, most of them in "on" ("others look on").
FUNCTION_WORDS = tuple(
    "a an the every my your his its our their whose "
    "of with in on to at from for into onto upon against among between toward towards during "
    "beside under over near along across through "
    "and or but nor as if than because while when where which who "
    "is are was were be been has have had will would could should".split()
)


@dataclass(frozen=True)
class Statistics:
    """What captions are like, be they right or wrong.

    mean_length: words of a caption. vocabulary_used: number of different words.
    function_endings: how many in 100 end in one of FUNCTION_WORDS. distinct: how many different
    ones there are for 100. brevity_penalty: 0-1, of the whole as BLEU has it by the references
    closest in length; BLEU without it is BLEU / brevity_penalty. novelty: how many in 100 no
    training caption equals, None where these are not at hand.
    """

    mean_length: float
    vocabulary_used: int
    function_endings: float
    distinct: float
    brevity_penalty: float
    novelty: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.mean_length:.2f} words a caption, {self.vocabulary_used} different words, "
            f"{self.function_endings:.1f} % end in a function word, "
            f"{self.distinct:.1f} % distinct, brevity penalty {self.brevity_penalty:.3f}"
            + ("" if self.novelty is None else f", {self.novelty:.1f} % novel")
        )

    @property
    def numbers(self) -> dict[str, float]:
        """By name, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def statistics(
    captions: Mapping[Id, str],
    references: Mapping[Id, Sequence[str]],
    training: Iterable[str] | None = None,
) -> Statistics:
    """What the captions are like, of the same two sides as `metrics.measure`.

    training: the captions that the model learned from. Two captions are equal if their letters
    and digits are, whatever the case, the spaces and the punctuation.
    """
    from nltk.translate.bleu_score import brevity_penalty, closest_ref_length

    hypotheses, several = split_both(captions, references)
    lengths = [len(words) for words in hypotheses]
    closest = map(closest_ref_length, several, lengths)
    unfinished = sum(words[-1] in FUNCTION_WORDS for words in hypotheses if words)
    known = None if training is None else set(map(_bare, training))
    new = sum(_bare(text) not in (known or ()) for text in captions.values())
    return Statistics(
        mean_length=sum(lengths) / len(lengths),
        vocabulary_used=len({word for words in hypotheses for word in words}),
        function_endings=100.0 * unfinished / len(hypotheses),
        distinct=100.0 * len(set(map(tuple, hypotheses))) / len(hypotheses),
        brevity_penalty=float(brevity_penalty(sum(closest), sum(lengths))),
        novelty=None if known is None else 100.0 * new / len(hypotheses),
    )


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))
