"""Image captioning, and linking of images and texts.

from captioner import Captioner, Index, Linker, TrainConfig, train

captioner = Captioner.from_pretrained("checkpoints/RUN")
captioner.caption("photo.jpg", beam_size=5).text
train(TrainConfig.from_options(data="photos", attention=True)).captioner

linker = Linker.from_pretrained("checkpoints/LINEAR_RUN")
linker.similarity("photo.jpg", ["a dog on the beach", "a red car"])
Index.open("photos.index").search("dog + beach - ball", top=10)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .decoding.options import DecodingOptions
from .errors import InputError

if TYPE_CHECKING:
    from .caption import Caption
    from .captioner import Captioner
    from .index import Index
    from .linker import Linker
    from .relation import RelationClassifier
    from .reranker import Reranker
    from .training.api import train
    from .training.config import TrainConfig
    from .training.result import TrainingResult

__all__ = [
    "Caption",
    "Captioner",
    "DecodingOptions",
    "Index",
    "InputError",
    "Linker",
    "RelationClassifier",
    "Reranker",
    "TrainConfig",
    "TrainingResult",
    "__version__",
    "train",
]
MODULES = {  # modules of the names that are imported on first use, since importing torch is slow
    "Caption": "caption",
    "Captioner": "captioner",
    "Index": "index",
    "Linker": "linker",
    "RelationClassifier": "relation",
    "Reranker": "reranker",
    "TrainConfig": "training.config",
    "TrainingResult": "training.result",
    "train": "training.api",
}


def __getattr__(name: str) -> Any:
    """Import a name that depends on torch on first use, because importing torch is slow."""
    if name in MODULES:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
