"""Image captioning: Show and Tell, and Show, Attend and Tell.

captioner = Captioner.from_pretrained("checkpoints/RUN")
captioner.caption("photo.jpg", beam_size=5).text
"""

from .captioner import Caption, Captioner
from .errors import InputError
from .filters import DecodingOptions

__version__ = "0.1.0"
__all__ = ["Caption", "Captioner", "DecodingOptions", "InputError", "__version__"]
