"""Loading the captioners, linking models, relation model and indexes of a service."""

from collections.abc import Sequence
from pathlib import Path

from ..captioner import Captioner
from ..checkpoints import checkpoint as checkpoints
from ..checkpoints import hub
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.linking import EMBEDDING_SYSTEMS
from ..devices import RuntimeOptions
from ..errors import InputError
from ..index import Index
from ..linker import Linker
from ..relation import RelationClassifier
from ..retrieval.index_files import read_manifest
from .collections import Collection


def load_models(
    runs: Sequence[Path], indexes: Sequence[Path], runtime: RuntimeOptions
) -> tuple[Captioner | None, list[Collection], RelationClassifier | None]:
    """Load runs and indexes; return the captioner, the collections and the relation model.

    The captioner and the relation model are None without one. runs: checkpoints of captioners,
    which form an ensemble if there are several, of at most one relation model, and of the linking
    models with which the indexes were written. An index whose linking model is not among them is
    searched with the checkpoint that the index records. Raises InputError if a checkpoint or an
    index cannot be loaded, for a checkpoint of another task, for a linking model that belongs to
    none of the indexes, and for a second relation model.
    """
    read = [checkpoints.load(hub.local(path)) for path in runs]
    captioners = [each for each in read if each.task == "captioning"]
    relations = [each for each in read if each.task == "relation"]
    linkers = [each for each in read if each.task not in ("captioning", "relation")]
    for each in linkers:
        if each.task not in EMBEDDING_SYSTEMS:
            raise InputError(
                f"{each.path} was trained for {each.task!r}, which cannot be served; pass the run "
                "of a captioner, of a relation model, or of an index's linking model"
            )
    if len(relations) > 1:
        paths = " and ".join(str(each.path) for each in relations)
        raise InputError(f"only one relation model can be served, got {paths}; pass one of them")
    collections = _open_indexes(indexes, linkers, runtime.device)
    classifier = None
    if relations:
        classifier = RelationClassifier.from_checkpoint(relations[0], runtime.device)
    if not captioners:
        return None, collections, classifier
    captioner = Captioner.from_checkpoints(
        captioners, runtime.device, runtime.precision, runtime.compile
    )
    return captioner, collections, classifier


def _open_indexes(
    directories: Sequence[Path], given: Sequence[Checkpoint], device: str | None
) -> list[Collection]:
    """Open the indexes with their linking models, each of which is loaded once."""
    by_weights = {checkpoints.identity(each.path): each for each in given}
    written = {directory: read_manifest(directory).weights for directory in directories}
    for weights, unused in by_weights.items():
        if weights not in written.values():
            advice = "pass such an index with --index"
            raise InputError(
                f"{unused.path} is a linking model, but no index was written with it; {advice}"
            )
    linkers: dict[str, Linker] = {}
    collections: list[Collection] = []
    for directory, weights in written.items():
        if weights not in linkers:
            linkers[weights] = (
                Linker.from_checkpoint(by_weights[weights], device)
                if weights in by_weights
                else Index.open(directory, device=device).linker
            )
        name = _unique_name(directory, {each.name for each in collections})
        collections.append(Collection(name, directory, linkers[weights], weights))
    return collections


def _unique_name(directory: Path, taken: set[str]) -> str:
    """Return the directory's name, followed by a number if another index has the same name."""
    base = directory.resolve().name
    names = (base, *(f"{base}-{number}" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)
