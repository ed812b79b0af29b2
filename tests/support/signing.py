"""Signing checkpoints whose files a test has changed."""

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
    """Rewrite the manifest to match the files."""
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
        if path.name != "manifest.json"
    }
    (directory / "manifest.json").write_text(json.dumps(sums))
