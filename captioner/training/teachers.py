"""The teachers of a distilled model, loaded from checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from ..checkpoints import checkpoint
from ..checkpoints.checkpoint import restore
from ..data.images import Transform
from ..errors import InputError
from ..models.base import CaptionModel
from ..models.captioning.build import CaptioningModel
from ..models.captioning.ensemble import Candidate, build_ensemble
from ..text.vocabulary import Vocabulary


def open_teachers(
    paths: Sequence[Path], student: CaptioningModel, vocabulary: Vocabulary, transform: Transform
) -> CaptionModel:
    """Load the checkpoints in eval mode and without gradients; several form an ensemble.

    vocabulary, transform: the student's. Raises InputError for a checkpoint with a different
    vocabulary or transform, or a different encoder if the student's encoder is frozen.
    """
    loaded = [checkpoint.load(path) for path in paths]
    for teacher in loaded:
        if teacher.vocabulary.words != vocabulary.words:
            raise InputError(
                f"teacher {teacher.path} cannot be used: its vocabulary differs from the new "
                "model's; choose a teacher trained on the same captions"
            )
    candidates = [
        Candidate(str(teacher.path), *restore(teacher), teacher.vocabulary) for teacher in loaded
    ]
    for candidate in candidates:
        if candidate.transform != transform:
            raise InputError(
                f"teacher {candidate.name} transforms images with {candidate.transform}, "
                f"but the new model uses {transform}"
            )
    if student.encoder.frozen:
        fingerprint = student.encoder.fingerprint()
        for candidate in candidates:
            if candidate.model.encoder.fingerprint() != fingerprint:
                raise InputError(
                    f"teacher {candidate.name} has a different encoder from the new model, "
                    "whose encoder is frozen"
                )
    return build_ensemble(candidates).eval().requires_grad_(False)
