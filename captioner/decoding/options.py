"""How to choose words: the options of decoding; what they ask for, filters and searches do."""

import math
from dataclasses import dataclass

from ..errors import InputError
from ..options import check_at_least, option, to_dict

BEAM_SIZE, LENGTH_PENALTY = 3, 0.5


@dataclass(frozen=True)
class DecodingOptions:
    """How to choose words; contradictions raise InputError at once.

    Beam search ranks by sum of log-probabilities / length ** length_penalty. The end token counts
    in that length and in max_length, where a caption is cut, but not in min_length. With consensus
    the captions of the beam are ranked by how well they agree with samples.
    """

    method: str = option("beam", "how to choose words", choices=("greedy", "sample", "beam"))
    beam_size: int | None = option(None, f"hypotheses kept by beam search [{BEAM_SIZE}]")
    num_captions: int = option(1, "captions returned per image, best first")
    max_length: int = option(30, "most words of a caption, its end counted")
    min_length: int = option(1, "fewest words of a caption")
    length_penalty: float | None = option(
        None, f"0 ranks by total, 1 by mean log-probability [{LENGTH_PENALTY}]"
    )
    consensus: int | None = option(None, "beam's caption most like so many samples, say 50")
    temperature: float = option(1.0, "samples likelier words below 1, rarer above")
    top_k: int | None = option(None, "sample from the k likeliest words only")
    top_p: float | None = option(None, "sample from the likeliest words of this share")
    no_repeat_ngram: int | None = option(None, "never write the same n words twice")
    allow_unknown: bool = option(False, "let captions contain <unk>")
    seed: int | None = option(None, "seed of sampling, the same for each image")
    word_alternatives: int = option(0, "other likely words told beside each word")

    def __post_init__(self) -> None:
        if self.method not in ("greedy", "sample", "beam"):
            raise InputError(f"method must be greedy, sample or beam, got {self.method!r}")
        check_at_least(self, 1, "beam_size", "num_captions", "max_length", "top_k")
        check_at_least(self, 1, "no_repeat_ngram", "consensus")
        check_at_least(self, 0, "min_length", "length_penalty", "word_alternatives")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be above 0, got {self.temperature}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.min_length > self.max_length:
            raise InputError(f"min_length {self.min_length} is above max_length {self.max_length}")
        shaped = self.temperature != 1 or self.top_k is not None or self.top_p is not None
        if self.method != "sample" and (shaped or self.seed is not None):
            raise InputError(
                "temperature, top_k, top_p and seed need method 'sample', "
                f"got method {self.method!r}"
            )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InputError(f"seed must be at least 0 and below 2**63, got {self.seed}")
        if self.method != "beam" and (self.length_penalty, self.beam_size) != (None, None):
            raise InputError(
                f"beam_size and length_penalty need method 'beam', got method {self.method!r}"
            )
        if self.consensus and (self.method != "beam" or self.beams == 1):
            raise InputError(
                "consensus chooses among a beam's captions: it needs method 'beam' and a beam_size "
                f"of at least 2, got method {self.method!r} and beam_size {self.beam_size}"
            )
        if self.method == "beam" and self.num_captions > self.beams:
            raise InputError(f"num_captions {self.num_captions} is above beam_size {self.beams}")
        if self.method == "greedy" and self.num_captions != 1:
            raise InputError(f"greedy gives one caption, got num_captions {self.num_captions}")

    @property
    def beams(self) -> int:
        """Hypotheses that beam search keeps."""
        return BEAM_SIZE if self.beam_size is None else self.beam_size

    @property
    def penalty(self) -> float:
        """The power of the length by which beam search divides."""
        return LENGTH_PENALTY if self.length_penalty is None else self.length_penalty

    def describe(self) -> str:
        """What the words are chosen by, for people: values used where none are given, too."""
        values = to_dict(self)
        if self.method == "beam":
            values |= {"beam_size": self.beams, "length_penalty": self.penalty}
        if self.method != "sample":
            del values["temperature"]
        del values["word_alternatives"]  # told, not chosen by
        used = [(n, each) for n, each in values.items() if each is not None and each is not False]
        return ", ".join(name if each is True else f"{name} {each}" for name, each in used)
