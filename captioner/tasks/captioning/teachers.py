"""The teachers of a distilled model, loaded from checkpoints."""

from collections.abc import Sequence
from pathlib import Path

from ...checkpoints import checkpoint, hub
from ...checkpoints.captioning import restore
from ...checkpoints.checkpoint import Checkpoint
from ...data.images import Transform
from ...errors import InputError
from ...models.base import CaptionModel
from ...models.captioning.build import CaptioningModel
from ...models.captioning.ensemble import Candidate, build_ensemble
from ...text.vocabulary import Vocabulary
from .options import CaptioningOptions


def teacher_paths(options: CaptioningOptions) -> list[Path]:
    """Return the local directories of the teachers; those on the hub are downloaded."""
    return [hub.local(path) for path in options.teachers]


def read_teachers(options: CaptioningOptions, transform: Transform) -> list[Checkpoint]:
    """Read the teachers' checkpoints.

    transform: the student's. Raises InputError for a checkpoint with a different transform.
    """
    teachers = [checkpoint.load(path) for path in teacher_paths(options)]
    for teacher in teachers:
        if teacher.transform != transform:
            raise InputError(
                f"teacher {teacher.path} cannot be used: it transforms images with "
                f"{teacher.transform}, but the new model uses {transform}; choose a teacher with "
                "the same transform"
            )
    return teachers


def build_teachers(
    teachers: Sequence[Checkpoint], student: CaptioningModel, vocabulary: Vocabulary
) -> CaptionModel:
    """Build the teachers in eval mode and without gradients; several form an ensemble.

    vocabulary: the student's. Raises InputError for a teacher with a different vocabulary, or, if
    the student's encoder is frozen, with a different encoder, and for teachers that cannot form an
    ensemble.
    """
    for teacher in teachers:
        if not teacher.vocabulary.same_as(vocabulary):
            raise InputError(
                f"teacher {teacher.path} cannot be used: its vocabulary differs from the new "
                "model's; choose a teacher trained on the same captions"
            )
    candidates = [
        Candidate(str(teacher.path), *restore(teacher), teacher.vocabulary) for teacher in teachers
    ]
    if student.encoder.frozen:
        fingerprint = student.encoder.fingerprint()
        for candidate in candidates:
            if candidate.model.encoder.fingerprint() != fingerprint:
                raise InputError(
                    f"teacher {candidate.name} cannot be used: its encoder differs from the new "
                    "model's, which is frozen; choose a teacher with the same encoder, or pass "
                    "--fine-tune-encoder"
                )
    return build_ensemble(candidates).eval().requires_grad_(False)
