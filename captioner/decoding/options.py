"""Decoding options: search, sampling, filters and ranking of captions."""

from dataclasses import dataclass
from typing import TypedDict

from ..errors import InputError
from ..options import check_bounds, option, to_dict

BEAM_SIZE, LENGTH_PENALTY = 3, 0.5
METHODS = ("greedy", "sample", "beam")


class DecodingKeywords(TypedDict, total=False):
    """The fields of `DecodingOptions` as keyword arguments, for type checkers."""

    method: str
    beam_size: int | None
    num_captions: int
    max_length: int
    min_length: int
    length_penalty: float | None
    consensus: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    no_repeat_ngram: int | None
    allow_unknown: bool
    seed: int | None
    word_alternatives: int


@dataclass(frozen=True)
class DecodingOptions:
    """Options of search, sampling and filters; contradictory options raise InputError.

    Beam search ranks captions by sum of log-probabilities / length ** length_penalty. The end token
    counts towards that length and towards max_length, at which captions are truncated, but not
    towards min_length. If `consensus` is set, the captions of the beam are ranked by their
    similarity to samples instead.
    """

    method: str = option("beam", "decoding method", choices=METHODS)
    beam_size: int | None = option(
        None, f"number of hypotheses kept in beam search [{BEAM_SIZE}]", at_least=1
    )
    num_captions: int = option(1, "number of captions per image, best first", at_least=1)
    max_length: int = option(30, "maximum length in tokens, end token included", at_least=1)
    min_length: int = option(1, "minimum caption length in words", at_least=0)
    length_penalty: float | None = option(
        None,
        f"length exponent in ranking (0: sum, 1: mean) [{LENGTH_PENALTY}]",
        at_least=0,
        at_most=10,  # above about 25, length ** penalty overflows float32
    )
    consensus: int | None = option(
        None, "number of samples for reranking the beam, e.g. 50", at_least=1
    )
    temperature: float = option(
        1.0,
        "sampling temperature; lower is less random",
        at_least=1e-4,
        at_most=10_000,
    )
    top_k: int | None = option(None, "number of most likely words to sample from", at_least=1)
    top_p: float | None = option(
        None, "cumulative probability of the words to sample from", above=0, at_most=1
    )
    no_repeat_ngram: int | None = option(None, "length of n-grams that must not repeat", at_least=1)
    allow_unknown: bool = option(False, "allow <unk> in captions")
    seed: int | None = option(
        None, "sampling seed, the same for every image", at_least=0, at_most=2**63 - 1
    )
    word_alternatives: int = option(0, "number of alternative words per position", at_least=0)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method must be greedy, sample or beam, got {self.method!r}")
        check_bounds(self)
        self._check_method()
        if self.min_length > self.max_length:
            raise InputError(
                f"min_length {self.min_length} is above max_length {self.max_length}; "
                "lower min_length or raise max_length"
            )

    def _check_method(self) -> None:
        """Raise InputError for options that the method does not support."""
        self._require("sample", "temperature", "top_k", "top_p", "seed")
        self._require("beam", "beam_size", "length_penalty", "consensus")
        if self.consensus and self.beams == 1:
            raise InputError(
                "consensus requires a beam_size of at least 2, got 1; raise beam_size or omit "
                "consensus"
            )
        if self.method == "beam" and self.num_captions > self.beams:
            raise InputError(
                f"num_captions {self.num_captions} is above beam_size {self.beams}; raise beam_size"
            )
        if self.method == "greedy" and self.num_captions != 1:
            raise InputError(
                f"greedy decoding returns one caption, got num_captions {self.num_captions}; "
                "use method 'sample' or 'beam'"
            )

    def _require(self, method: str, *names: str) -> None:
        """Raise InputError if any named option is not its default and the method is another."""
        given = [name for name in names if getattr(self, name) != getattr(type(self), name)]
        if given and self.method != method:
            raise InputError(
                f"{' and '.join(given)} require{'s' * (len(given) == 1)} method {method!r}, got "
                f"method {self.method!r}; change the method or omit {' and '.join(given)}"
            )

    @property
    def beams(self) -> int:
        """Number of hypotheses per image that beam search keeps."""
        return BEAM_SIZE if self.beam_size is None else self.beam_size

    @property
    def penalty(self) -> float:
        """Exponent of the caption length in beam-search scores."""
        return LENGTH_PENALTY if self.length_penalty is None else self.length_penalty

    def describe(self) -> str:
        """Return the options that affect the captions as one line, with beam search's defaults."""
        values = to_dict(self)
        if self.method == "beam":
            values |= {"beam_size": self.beams, "length_penalty": self.penalty}
        if self.method != "sample":
            del values["temperature"]
        del values["word_alternatives"]  # does not affect the captions
        used = {
            name: value
            for name, value in values.items()
            if value is not None and value is not False
        }
        return ", ".join(
            name if value is True else f"{name} {value}" for name, value in used.items()
        )
