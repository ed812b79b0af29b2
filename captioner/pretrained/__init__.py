"""The models that come with the package; their directories are checkpoints like any other."""

from pathlib import Path

from ..console import note

CAPTIONER, JOINT, SPATIAL = "flickr8k", "flickr8k-joint", "flickr8k-spatial"
NAMES = (CAPTIONER, JOINT, SPATIAL)


def find_pretrained(name: str | Path) -> Path | None:
    """Return the directory of the model `name`, or None if no model has this name.

    A run or checkpoint of the same name in the working directory goes before.
    """
    path = Path(name)
    is_run = any((path / part / "manifest.json").is_file() for part in ("", "best", "last"))
    if str(path) not in NAMES or is_run:
        return None
    return Path(__file__).parent / path


def default_model(name: str) -> Path:
    """Return `name` as a path, and say that this model is used because no other was passed."""
    origin = "which comes with captioner" if find_pretrained(name) else "a run in this directory"
    note(f"model: {name}, {origin}; for another, pass its run")
    return Path(name)
