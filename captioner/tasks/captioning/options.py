"""The options of captioning, except its model options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...metrics.captions import WITHOUT_JAVA, select_metrics
from ...options import Options, check_at_least, check_share, option
from ...text.tokenizer import get_tokenizer

DEFAULT_SCORE = "BLEU-4"


@dataclass(frozen=True)
class CaptioningOptions(Options):
    """Options of a captioning run: vocabulary, objective, and decoding of validation captions."""

    min_count: int = option(
        5, "minimum word count in the training captions; rarer words become <unk>"
    )
    tokenizer: str | Callable[[str], Sequence[str]] = option(
        "words", "tokenizer: words, characters or module:function"
    )
    scheduled_sampling: float = option(0.0, "final scheduled-sampling probability")
    self_critical: bool = option(False, "also train on sampled captions, rewarded by CIDEr-D")
    cross_entropy_share: float = option(
        0.1, "weight of the references' cross-entropy in self-critical training"
    )
    teachers: tuple[Path, ...] = option(
        (), "runs or checkpoints to distil from in addition to the captions; several are averaged"
    )
    beam_size: int = option(3, "beam size for validation captions")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(self, 1, "min_count", "beam_size")
        get_tokenizer(self.tokenizer)  # raises InputError for an unknown one
        check_share(self, "cross_entropy_share", "scheduled_sampling")


def epoch_metrics(watch: str | None) -> tuple[str, ...]:
    """Return the metrics to compute after each epoch.

    METEOR is slow, so it is included only if it is watched.
    """
    return select_metrics((*WITHOUT_JAVA, watch or DEFAULT_SCORE))
