"""Image captioning: Show and Tell, and Show, Attend and Tell."""

__version__ = "0.1.0"
