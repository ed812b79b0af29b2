"""Inputs and outputs of every evaluation: checkpoints, a split, features, files."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic_io import atomic_write
from ..checkpoints import checkpoint, hub
from ..checkpoints.checkpoint import Checkpoint
from ..data.dataset import CaptionData, Example, fingerprint, problem_lines
from ..data.images import Transform, load_image
from ..data.inspection import drop_corrupt_images
from ..data.readers import load_data
from ..data.sources import ImageSource, Source
from ..data.storage import files as storage
from ..data.storage.location import Location
from ..devices import device_of
from ..errors import InputError
from ..pretrained import find_pretrained
from ..vision.encoders import Encoder
from ..vision.feature_store import FeatureStore, Runtime
from .options import EvaluationOptions

SCORES_FILE = "scores.json"


def load_checkpoints(options: EvaluationOptions) -> list[Checkpoint]:
    """Load the checkpoints, downloading those on the hub.

    Raises InputError if a checkpoint cannot be loaded, or if --output is missing although there is
    no default directory for the results.
    """
    if len(options.checkpoint) > 1 and options.output is None:
        raise InputError(
            "several checkpoints have no common run directory; pass --output with a directory "
            "for the results"
        )
    shipped = [path for path in options.checkpoint if find_pretrained(path)]
    if shipped and (options.output is None or options.data is None):
        raise InputError(
            f"{shipped[0]} comes with captioner, without its data; pass --data with a data set and "
            "--output with a directory for the results"
        )
    paths = [hub.local(path) for path in options.checkpoint]
    if paths != list(options.checkpoint) and options.output is None:
        raise InputError(
            "a checkpoint from the hub has no run directory; pass --output with a directory for "
            "the results"
        )
    return [checkpoint.load(path) for path in paths]


def data_source(
    config: Mapping[str, Any],
    data: Path | None,
    format: str | None,
    advice: str = "pass --data with its new location",
) -> tuple[Path | Location | None, str | None]:
    """Return the path and format of the data; the default is the checkpoint's training data.

    A path of None means the demo data, and a format of None is detected. Raises InputError if
    `format` is passed without `data`, or if the training data no longer exists; advice: what to do
    in the latter case, for the message.
    """
    if data is not None:
        return data, format
    if format is not None:
        raise InputError("--format has no effect without --data; pass --data or omit --format")
    trained_on = config["data"]
    if trained_on["path"] is None:
        return None, None
    place = storage.parse_location(trained_on["path"])
    if not storage.is_pattern(place) and not storage.exists(place):
        raise InputError(f"training data {place} no longer exists; {advice}")
    return place, trained_on["format"]


def load_split(
    options: EvaluationOptions, config: Mapping[str, Any], split: str
) -> tuple[CaptionData, list[str] | None]:
    """Load the data and the model's training captions.

    The captions are None if image ids, splits or captions differ from the training data's. Corrupt
    images in the split are handled as in training.
    """
    path, format = data_source(config, options.data, options.format)
    on_error = config["data"].get("on_error", "stop")
    complete = load_data(path, format, options.cache, on_error)
    memo = _writable(options.cache)
    data, _ = drop_corrupt_images(complete, (split,), on_error, memo, options.workers)
    for line in problem_lines(data.problems[len(complete.problems) :]):
        print(f"skipped: {line}")
    if fingerprint(complete) == config["data"]["fingerprint"]:
        left_out = config["data"].get("left_out", ())
        training = [e for e in complete.examples if e.split == "train" and e.id not in left_out]
        return data, [text for example in training for text in example.captions]
    if options.data is None:
        print("note: image ids, splits or captions have changed since the model was trained")
    return data, None


def sample_training_images(
    config: Mapping[str, Any] | None, cache: Path, count: int
) -> list[Path | Location]:
    """Return up to `count` evenly spaced images of the train split that a model was trained on.

    config: the config of the model's checkpoint, or None for an ensemble. The result is empty if
    config is None, or if the data no longer exists, cannot be read or is on a server. An unreadable
    image is replaced by one that follows it, if possible.
    """
    if config is None:
        return []
    try:
        place, format = data_source(config, None, None)
        if isinstance(place, Location):
            return []
        data = load_data(place, format, cache, "skip")
    except (InputError, OSError):
        return []
    left_out = config["data"].get("left_out", ())
    paths = [e.path for e in data.split("train") if e.id not in left_out]
    step = max(1, len(paths) // count)
    groups = (
        paths[first : first + step] for first in range(0, min(len(paths), count * step), step)
    )
    readable = (next(filter(_is_readable, group), None) for group in groups)
    return [path for path in readable if path is not None]


def _is_readable(path: Path | Location) -> bool:
    try:
        load_image(path)
    except InputError:
        return False
    return True


def make_directory(directory: Path, flag: str) -> None:
    """Create the directory that an option names, or that will contain the option's file.

    flag: the option's flag, for the message. Call this before any other work, so that errors show
    early. Raises InputError if the directory cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{flag}: directory {directory} cannot be created: {error.strerror}; choose another "
            "directory"
        ) from error


def _writable(cache: Path) -> Path | None:
    """Return the cache directory, created if necessary; None if that fails or it is read-only."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return cache if os.access(cache, os.W_OK) else None


def open_features(
    encoder: Encoder,
    transform: Transform,
    examples: Sequence[Example],
    options: EvaluationOptions,
    kind: str = "maps",
) -> Source:
    """Return stored features of the examples' images; missing features are computed first.

    encoder: a frozen encoder. kind: "maps" for feature maps, or "pooled" for their means and
    maxima. If features cannot be stored, for example because the disk is full, a note is printed
    and the images are returned.
    """
    files = ImageSource([example.path for example in examples], transform)
    store = FeatureStore(options.cache, encoder, transform)
    try:
        return store.open_files(files, Runtime(device_of(encoder), options.workers), kind)
    except InputError as error:
        print(f"note: features are not stored: {error}")
        return files


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically, indented by one space."""
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
