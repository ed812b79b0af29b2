"""Checkpoint files that tests change: which there are, and a manifest that matches again."""

import hashlib
import json
from pathlib import Path

FILES = (
    "config.json",
    "vocabulary.json",
    "model.safetensors",
    "training_state.pt",
    "manifest.json",
)


def sign(directory: Path) -> None:
    """Make the manifest agree with files that were tampered with."""
    sums = {
        name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in FILES[:-1]
    }
    (directory / "manifest.json").write_text(json.dumps(sums))
