"""Image captioning: Show and Tell; Show, Attend and Tell.

from captioner import Captioner

captioner = Captioner.from_pretrained("checkpoints/RUN")
captioner.caption("photo.jpg", beam_size=5).text
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .decoding.options import DecodingOptions
from .errors import InputError

if TYPE_CHECKING:
    from .caption import Caption
    from .captioner import Captioner

__all__ = ["Caption", "Captioner", "DecodingOptions", "InputError", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the classes that need torch on first use, because importing torch is slow."""
    if name in ("Caption", "Captioner"):
        return getattr(import_module(f".{name.lower()}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
