"""The relation model and the article reader of a checkpoint."""

from ..errors import InputError
from ..models.relation.articles import ArticleReader
from ..models.relation.model import RelationModel
from ..models.relation.options import RelationOptions
from ..options import from_dict
from ..vision.encoders import build_encoder
from .checkpoint import Checkpoint
from .checkpoint import restore as restore_weights

RELATION = "relation"  # the name of the task
_SIZES = ("max_sentences", "max_words")


def restore(checkpoint: Checkpoint) -> tuple[RelationModel, ArticleReader]:
    """Build the relation model of a checkpoint on the CPU; return it with its reader.

    Raises InputError if the checkpoint was trained for another task, or if its files do not match
    each other.
    """
    checkpoint.check_task(RELATION)
    reader = load_reader(checkpoint)

    def build() -> RelationModel:
        config = checkpoint.config
        own = config["encoder"]
        encoder = build_encoder(
            own["encoder"], fine_tune_from=own["fine_tune_encoder"], pretrained=True
        )
        options = from_dict(RelationOptions, config["model"])
        return RelationModel(encoder.channels, len(reader.vocabulary), options, encoder)

    return restore_weights(checkpoint, build), reader


def load_reader(checkpoint: Checkpoint) -> ArticleReader:
    """Return the reader of a checkpoint; raise InputError if its config does not describe one."""
    own = checkpoint.config.get(RELATION)
    given = [own.get(name) if isinstance(own, dict) else None for name in _SIZES]
    sizes = [size for size in given if isinstance(size, int) and size > 0]
    if len(sizes) < len(_SIZES):
        raise InputError(
            f"checkpoint {checkpoint.path} cannot be used: config.json does not describe the texts "
            "that it reads; copy or download the checkpoint again"
        )
    return ArticleReader(checkpoint.vocabulary, *sizes)
