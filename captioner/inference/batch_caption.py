"""`captioner caption`: captions of many images as text, JSON or JSONL.

A JSON or JSONL record is {"image": path, **Caption.to_dict()}, or {"image": path, "error":
message} for an image that cannot be read.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..checkpoints import checkpoint, hub
from ..data.image_paths import find_images, part_of, unique_names
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..options import check_at_least, option, to_dict
from ..plots.heatmaps import ENDINGS
from .jsonl_writer import open_jsonl

if TYPE_CHECKING:
    from ..captioner import Captioner

Record = Mapping[str, Any]


@dataclass(frozen=True)
class CaptionOptions:
    """Checkpoints, output and its format, shard of the images, heatmaps, and batch size."""

    checkpoint: tuple[Path, ...] = option(
        (Path("checkpoints/demo-attention"),), "run or checkpoint"
    )
    format: str | None = option(None, "output format [text]", choices=("text", "json", "jsonl"))
    output: Path | None = option(None, "JSONL output file; rerun the command to resume")
    shard: str = option("1/1", "part i/n of the images to caption")
    heatmap: Path | None = option(None, "directory for heatmaps, one per image")
    heatmap_format: str = option("png", "format: png, svg ..., gif, webp or npy", choices=ENDINGS)
    batch_size: int = option(32, "number of images per batch")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        part_of((), self.shard)
        if self.output and self.format not in (None, "jsonl"):
            raise InputError(
                f"--output always writes JSONL, got --format {self.format}; omit --format"
            )


@dataclass(frozen=True)
class _Job:
    """The options of one command, and the name of each image's heatmap."""

    options: CaptionOptions
    decoding: DecodingOptions
    runtime: RuntimeOptions
    heatmap_names: Mapping[str, str]


def caption_images(
    sources: Sequence[str],
    options: CaptionOptions,
    decoding: DecodingOptions,
    runtime: RuntimeOptions,
) -> None:
    """Caption the images found in the sources and print the captions or write them to a file.

    sources: as in `find_images`; "-" reads paths from standard input. An image that cannot be read
    does not stop the command; after the last image, an InputError reports how many images failed.
    Also raises InputError for invalid sources, checkpoints and options.
    """
    images = find_images(sources, sys.stdin.buffer if "-" in sources else ())
    names = unique_names(images) if options.heatmap else {}
    part = part_of(images, options.shard)
    job = _Job(options, decoding, runtime, names)
    if options.output:
        failures = _write_records(options.output, part, job)
        print(f"captions: {options.output}")
    else:
        failures = _print_records(_caption_records(part, job), options.format or "text")
    if options.heatmap and options.format in (None, "text"):
        print(f"heatmaps: {options.heatmap}")
    if failures:
        prints_errors = not options.output and options.format in (None, "text")
        where = "above" if prints_errors else f"in {options.output or 'the output'}"
        raise InputError(
            f"{failures:,} of {len(part):,} images could not be captioned; see the errors {where}"
        )


def _print_records(records: Iterable[Record], form: str) -> int:
    """Print the records as they arrive and return the number of errors among them."""
    failures = 0
    for text, record in _FORMATS[form](records):
        print(text, end="", flush=True)
        failures += "error" in record
    return failures


def _write_records(path: Path, images: Sequence[str], job: _Job) -> int:
    """Append records for images not yet in the file and return the number of failed images."""
    with open_jsonl(path, _settings(job)) as jsonl:
        remaining = [image for image in images if image not in jsonl.answered]
        failures = sum(image in jsonl.failed for image in images)
        if done := len(images) - len(remaining):
            print(f"images already in {path}: {done:,}", file=sys.stderr)
        if remaining:
            records = _caption_records(remaining, job)
            failures += sum("error" in record for record in jsonl.append(records))
    return failures


def _settings(job: _Job) -> dict[str, Any]:
    """Return everything that the captions depend on; unset options have their default values."""
    paths = job.options.checkpoint
    return {
        "checkpoint": " + ".join(checkpoint.identity(hub.local(path)) for path in paths),
        "precision": job.runtime.precision,
        **to_dict(job.decoding),
        "beam_size": job.decoding.beams,
        "length_penalty": job.decoding.penalty,
    }


def _caption_records(images: Sequence[str], job: _Job) -> Iterator[Record]:
    """Yield a record for each image, in order, after writing its heatmap."""
    options, captioner = job.options, _load(job)
    stream = captioner.stream(
        images, batch_size=options.batch_size, on_error="yield", **to_dict(job.decoding)
    )
    # Captions printed to a terminal show the progress themselves. Otherwise disable=None makes
    # tqdm show a bar only if stderr is a terminal.
    scrolling = options.output is None and sys.stdout.isatty()
    with tqdm(total=len(images), unit="image", leave=False, disable=scrolling or None) as bar:
        for image, caption in zip(images, stream, strict=True):
            if isinstance(caption, InputError):
                yield {"image": image, "error": str(caption)}
            else:
                if options.heatmap and caption.words:
                    name = f"{job.heatmap_names[image]}.{options.heatmap_format}"
                    caption.save_heatmap(options.heatmap / name)
                yield {"image": image, **caption.to_dict()}
            bar.update()


def _load(job: _Job) -> "Captioner":
    from ..captioner import Captioner

    paths, runtime = job.options.checkpoint, job.runtime
    captioner = Captioner.from_pretrained(paths, runtime.device, runtime.precision, runtime.compile)
    if job.options.heatmap and not captioner.model.has_attention:
        names = " + ".join(map(str, paths))
        raise InputError(f"heatmaps cannot be drawn: {names} has no attention; omit --heatmap")
    return captioner


def _as_text(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Format the best caption and its alternatives, one per line; errors go to stderr."""
    for record in records:
        if "error" in record:
            print(record["error"], file=sys.stderr, flush=True)
            yield "", record
            continue
        # A file name that is not valid UTF-8 is printed with "?" for each invalid byte.
        image = record["image"].encode("utf-8", "replace").decode()
        captions = [record, *record.get("alternatives", ())]
        yield "".join(f"{image}\t{each['caption']}\n" for each in captions), record


def _as_json(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """Format the records as one JSON array, with one element per line."""
    separator = "[\n"
    for record in records:
        yield separator + json.dumps(record), record
        separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n", {}


def _as_jsonl(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    for record in records:
        yield json.dumps(record) + "\n", record


_FORMATS = {"text": _as_text, "json": _as_json, "jsonl": _as_jsonl}
