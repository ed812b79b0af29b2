"""Everything one training run needs, built from its configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import hub
from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.runs import open_run, open_source, run_directory
from ..data.dataset import CaptionData, fingerprint, image_sizes
from ..data.images import Transform
from ..data.inspection import drop_corrupt_images
from ..data.readers import load_data
from ..data.storage import files as storage
from ..distributed import say
from ..errors import InputError
from ..options import to_dict
from ..pretrained import CAPTIONER
from ..tasks.task import Job, JobInputs
from ..vision.encoders import check_encoder, encoder_transform
from ..vision.options import SMALL_CNN
from .config import TrainConfig

USED_SPLITS = ("train", "val")
PHOTOGRAPHS = (".jpg", ".jpeg", ".webp")
SAMPLE = 1000  # examples whose file names are examined
SUITABLE = "mobilenet_v2"


@dataclass(frozen=True)
class TrainingSetup:
    """Everything one training run needs.

    checkpoint_config: the config stored in checkpoints. job: the task's part of the run. resumed:
    the checkpoint from which the run continues, if any.
    """

    config: TrainConfig
    device: torch.device
    run: Path
    data: CaptionData
    checkpoint_config: dict[str, Any]
    job: Job
    resumed: Checkpoint | None


def build_setup(config: TrainConfig, device: torch.device) -> TrainingSetup:
    """Read the data and build the task's job, which includes the model.

    Raises InputError for user errors, most of them before images are decoded.
    """
    config.system.check_inputs(config)
    check_encoder(config.encoder, pretrained=config.run.start_from is not None)
    options = config.data
    original = load_data(options.data, options.format, options.cache, options.on_error)
    check_skipped(original, options.max_skipped)
    transform = encoder_transform(config.encoder)
    described = checkpoint_config(config, original, transform)
    run = run_directory(config.run.run or f"{original.name}-{config.system.model_name(config)}")
    resumed = open_run(run, config.run.resume, described)
    start = resumed or _open_start(config, described)
    for split in USED_SPLITS:  # raises InputError for an empty split before images are decoded
        original.split(split)
    data, corrupt = drop_corrupt_images(
        original, USED_SPLITS, options.on_error, options.cache, options.workers
    )
    check_skipped(data, options.max_skipped)
    described = with_corrupt_images(described, corrupt, resumed)
    say(data.summary())
    for remark in (photograph_warning(config, data), demo_note(config, original, start)):
        if remark:
            say(remark)
    job = config.system.build(JobInputs(config, data, transform, device, run, start))
    return TrainingSetup(config, device, run, data, described, job, resumed)


def photograph_warning(config: TrainConfig, data: CaptionData) -> str | None:
    """Return a warning if small_cnn is to be trained from scratch on photographs, or None.

    Images are assumed to be photographs if at least half of the first SAMPLE files have a format
    that cameras use. small_cnn was designed for the demo's shapes.
    """
    encoder = config.encoder
    if getattr(config.task, "image_vectors", None) is not None:
        return None
    if encoder.encoder != SMALL_CNN or not encoder.trains or config.run.start_from is not None:
        return None
    photographs = sum(
        example.path.suffix.lower() in PHOTOGRAPHS for example in data.examples[:SAMPLE]
    )
    if config.data.data is None or 2 * photographs < len(data.examples[:SAMPLE]):
        return None
    return (
        "warning: small_cnn is made for the demo's shapes and learns little from photographs; add "
        f"--encoder {SUITABLE} --encoder-weights {CAPTIONER}, weights that come with captioner, or "
        "pass a file of weights"
    )


def demo_note(config: TrainConfig, data: CaptionData, start: Checkpoint | None) -> str | None:
    """Return a note if training starts from a run on other data but uses the demo data, or None.

    start: may also be a checkpoint of the run itself, which has the same data, perhaps elsewhere.
    """
    source = config.run.start_from
    if source is None or start is None or config.data.data is not None:
        return None
    before = start.config["data"]
    path = before.get("path")
    if path is None or before.get("fingerprint") == fingerprint(data):
        return None
    of_source = f"not that of {source}" + ("" if str(source) == path else f" ({path})")
    return f"note: without --data, training uses the demo data, {of_source}"


def _open_start(config: TrainConfig, described: dict[str, Any]) -> Checkpoint | None:
    """Open the checkpoint of --start-from, if any; raise InputError if it does not fit the run."""
    path = config.run.start_from
    if path is None:
        return None
    return open_source(hub.local(path), described, config.system.architecture)


def check_skipped(data: CaptionData, limit: float) -> None:
    """Raise InputError if the fraction of skipped rows and images exceeds `limit`."""
    skipped, usable = len(data.problems), len(data.examples)
    if skipped > limit * (skipped + usable):
        share = skipped / (skipped + usable)
        raise InputError(
            f"{skipped} rows and images of {data.root} would be skipped and {usable} images used, "
            f"but the fraction {share:.3g} is more than --max-skipped {limit:g}; correct them or "
            f"pass a larger --max-skipped; the first problem: {data.problems[0]}"
        )


def checkpoint_config(
    config: TrainConfig, data: CaptionData, transform: Transform
) -> dict[str, Any]:
    """Return the config stored in checkpoints: plain values, with options by group."""
    start_from = config.run.start_from
    described: dict[str, Any] = {
        "task": config.system.name,
        "start_from": None if start_from is None else str(start_from),
        "encoder": to_dict(config.encoder),
        "model": to_dict(config.model),
        "transform": transform.to_dict(),
        "training": to_dict(config.training),
        "data": {
            "name": data.name,
            "format": data.format,
            "path": None if config.data.data is None else str(storage.absolute(data.root)),
            "on_error": config.data.on_error,
            "max_skipped": config.data.max_skipped,
            "fingerprint": fingerprint(data),
            "image_sizes": image_sizes(data),
        },
    }
    for name, section in config.system.stored(config).items():
        described[name] = described[name] | section if name in described else section
    return described


def with_corrupt_images(
    described: dict[str, Any], ids: list[int | str], resumed: Checkpoint | None
) -> dict[str, Any]:
    """Return the checkpoint config with the ids of images that cannot be decoded, as "left_out".

    resumed: the checkpoint to resume from, if any. Raises InputError if its run omitted different
    images.
    """
    before = ids if resumed is None else resumed.config["data"].get("left_out", [])
    if ids != before:
        raise InputError(
            f"{resumed and resumed.path} cannot be resumed: {len(before)} images could not be "
            f"decoded when the run began ({before[:10]}), but {len(ids)} cannot be decoded now "
            f"({ids[:10]}); restore the images or start a new run"
        )
    return {**described, "data": {**described["data"], "left_out": ids}}
