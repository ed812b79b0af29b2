"""`captioner caption`: captions of many images as text, JSON or JSONL.

A JSON or JSONL record is {"image": path, **Caption.to_dict()}, or {"image": path, "error":
message} for an image that cannot be read. A CSV file has the columns image, caption and score and
a row for each caption, so that it can be read as a data set.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic_io import atomic_write
from ..checkpoints import checkpoint, hub
from ..console import note, progress_bar, say
from ..data.image_paths import find_images, part_of, unique_names
from ..data.storage import files as storage
from ..decoding.options import DecodingOptions
from ..devices import RuntimeOptions
from ..errors import InputError
from ..options import check_at_least, option, to_dict
from ..plots.heatmaps import ENDINGS
from ..pretrained import CAPTIONER
from .jsonl_writer import open_jsonl

if TYPE_CHECKING:
    from ..captioner import Captioner

Record = Mapping[str, Any]
OUTPUTS = (".jsonl", ".ndjson", ".csv")


@dataclass(frozen=True)
class CaptionOptions:
    """Checkpoints, output and its format, shard of the images, heatmaps, and batch size."""

    checkpoint: tuple[Path, ...] = option((Path(CAPTIONER),), "run or checkpoint")
    format: str | None = option(None, "output format [text]", choices=("text", "json", "jsonl"))
    output: Path | None = option(None, "output file: .jsonl (rerun to resume) or .csv")
    shard: str = option("1/1", "part i/n of the images to caption")
    heatmap: Path | None = option(None, "directory for heatmaps, one per image")
    heatmap_format: str = option("png", "format: png, svg ..., gif, webp or npy", choices=ENDINGS)
    batch_size: int = option(32, "number of images per batch")
    allow_urls: bool = option(False, "download images named by http(s) URLs")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        part_of((), self.shard)
        if self.output and self.output.suffix.lower() not in OUTPUTS:
            raise InputError(f"--output must end in {' or '.join(OUTPUTS)}, got {self.output}")
        if self.output and self.format is not None and self.format != self._written:
            raise InputError(
                f"--output {self.output} writes {self._written.upper()}, got --format "
                f"{self.format}; omit --format"
            )

    @property
    def _written(self) -> str:
        """The format of the output file, which its extension determines."""
        assert self.output is not None
        return "csv" if self.output.suffix.lower() == ".csv" else "jsonl"


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
    is_csv = options.output is not None and options.output.suffix.lower() == ".csv"
    if options.output and is_csv:
        failures = _write_csv(options.output, part, job)
        say(f"captions: {options.output}")
    elif options.output:
        failures = _write_records(options.output, part, job)
        say(f"captions: {options.output}")
    else:
        failures = _print_records(_caption_records(part, job), options.format or "text")
    if options.heatmap and options.format in (None, "text"):
        say(f"heatmaps: {options.heatmap}")
    if failures:
        in_output = options.format in ("json", "jsonl") or (options.output and not is_csv)
        where = f"in {options.output or 'the output'}" if in_output else "above"
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
            note(f"images already in {path}: {done:,}")
        if remaining:
            records = _caption_records(remaining, job)
            failures += sum("error" in record for record in jsonl.append(records))
    return failures


def _write_csv(path: Path, images: Sequence[str], job: _Job) -> int:
    """Write all captions at once, replacing the file; return the number of failed images."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(["image", "caption", "score"])
    failures = 0
    for record in _caption_records(images, job):
        if "error" in record:
            print(record["error"], file=sys.stderr, flush=True)
            failures += 1
            continue
        for each in (record, *record.get("alternatives", ())):
            writer.writerow([record["image"], each["caption"], each["score"]])
    atomic_write(path, content.getvalue().encode("utf-8", "surrogateescape"))
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
    options, captioner = job.options, _load(job, images)
    stream = captioner.stream(
        images,
        batch_size=options.batch_size,
        on_error="yield",
        allow_urls=options.allow_urls,
        **to_dict(job.decoding),
    )
    # Captions printed to a terminal show the progress themselves.
    scrolling = options.output is None and sys.stdout.isatty()
    with progress_bar(total=len(images), unit="image", shown=not scrolling) as bar:
        for image, caption in zip(images, stream, strict=True):
            if isinstance(caption, InputError):
                yield {"image": image, "error": str(caption)}
            else:
                if options.heatmap and caption.words:
                    name = f"{job.heatmap_names[image]}.{options.heatmap_format}"
                    caption.save_heatmap(options.heatmap / name)
                yield {"image": image, **caption.to_dict()}
            bar.update()


def _load(job: _Job, images: Sequence[str]) -> "Captioner":
    """Load the models; an error also names an image that does not exist."""
    from ..captioner import Captioner

    paths, runtime = job.options.checkpoint, job.runtime
    try:
        captioner = Captioner.from_pretrained(
            paths, runtime.device, runtime.precision, runtime.compile
        )
    except InputError as error:
        raise InputError(f"{error}{_missing(images)}") from error
    if job.options.heatmap and not captioner.model.has_attention:
        names = " + ".join(map(str, paths))
        raise InputError(f"heatmaps cannot be drawn: {names} has no attention; omit --heatmap")
    return captioner


def _missing(images: Sequence[str]) -> str:
    """Return a clause that names the first image without a file, if any."""
    for image in images:
        place = storage.parse_location(image)
        if isinstance(place, Path) and not (place.exists() or storage.is_file(place)):
            return f"; the image {image!r} does not exist either"
    return ""


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
