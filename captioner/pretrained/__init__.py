"""The models that come with the package; their directories are checkpoints like any other."""

from pathlib import Path

CAPTIONER, JOINT, SPATIAL = "flickr8k", "flickr8k-joint", "flickr8k-spatial"
NAMES = (CAPTIONER, JOINT, SPATIAL)


def find_pretrained(name: str | Path) -> Path | None:
    """Return the directory of the model `name`, or None if no model has this name.

    A directory of that name in the working directory goes before.
    """
    if str(name) not in NAMES or Path(name).exists():
        return None
    return Path(__file__).parent / name
