"""`captioner caption`: many images captioned one after the other, as text, JSON or JSONL.

Which images are meant is image_lists.py's; the file that a run goes on with, answers.py's.
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
    from ..caption import Caption
    from ..captioner import Captioner

Record = Mapping[str, Any]


@dataclass(frozen=True)
class CaptionOptions:
    """What to caption with, and where the captions go."""

    checkpoint: tuple[Path, ...] = option(
        (Path("checkpoints/demo-attention"),), "run, several together"
    )
    format: str | None = option(None, "what is printed [text]", choices=("text", "json", "jsonl"))
    output: Path | None = option(None, "file for JSONL; the same again goes on with it")
    shard: str = option("1/1", "caption part i of n, as i/n")
    heatmap: Path | None = option(None, "directory for a heatmap of each image")
    heatmap_format: str = option("png", "figure (png, svg ...), gif, webp or npy", choices=ENDINGS)
    batch_size: int = option(32, "images captioned at once")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        part_of((), self.shard)
        if self.output and self.format not in (None, "jsonl"):
            raise InputError(f"--output writes JSONL; leave out --format {self.format}")


def caption_images(
    sources: Sequence[str],
    options: CaptionOptions,
    decoding: DecodingOptions,
    runtime: RuntimeOptions = RuntimeOptions(),
) -> None:
    """Caption what the sources name, and print it or write it to a file.

    An image that cannot be read does not stop the others; in the end InputError says how many
    could not.
    """
    images = find_images(sources, sys.stdin.buffer if "-" in sources else ())
    names = unique_names(images) if options.heatmap else {}
    mine = part_of(images, options.shard)
    if options.output:
        failed = _to_file(options.output, mine, names, options, decoding, runtime)
        print(f"captions: {options.output}")
    else:
        failed = 0
        records = _answer(mine, names, options, decoding, runtime)
        for text, record in _FORMATS[options.format or "text"](records):
            print(text, end="", flush=True)
            failed += "error" in record
    if options.heatmap and options.format in (None, "text"):
        print(f"heatmaps: {options.heatmap}")
    if failed:
        raise InputError(f"{failed:,} of {len(mine):,} images could not be captioned")


def record(image: str, caption: "Caption") -> Record:
    """A caption as JSON holds it: log-probabilities in nats, each word's and the end's."""
    found: dict[str, Any] = {"image": image, **_sentence(caption)}
    if caption.alternatives:
        found["alternatives"] = [_sentence(other) for other in caption.alternatives]
    return found


def _sentence(caption: "Caption") -> dict[str, Any]:
    found: dict[str, Any] = {
        "caption": caption.text,
        "score": round(caption.score, 4),
        "words": caption.words,
        "log_probs": [round(each, 4) for each in caption.log_probs],
    }
    if caption.word_alternatives:
        found["word_alternatives"] = [
            [{"word": word, "log_prob": round(each, 4)} for word, each in others]
            for others in caption.word_alternatives
        ]
    return found


def _to_file(
    path: Path,
    images: Sequence[str],
    names: Mapping[str, str],
    options: CaptionOptions,
    decoding: DecodingOptions,
    runtime: RuntimeOptions,
) -> int:
    """Answer the images that the file does not; returns how many of all have an error there."""
    made_by = {
        "checkpoint": " + ".join(
            checkpoint.identity(hub.local(path)) for path in options.checkpoint
        ),
        "precision": runtime.precision,
        **to_dict(decoding),
        "beam_size": decoding.beams,  # what is meant where they are not given
        "length_penalty": decoding.penalty,
    }
    with open_jsonl(path, made_by) as answers:
        left = [image for image in images if image not in answers.answered]
        failed = sum(image in answers.failed for image in images)
        if len(left) < len(images):
            print(f"{len(images) - len(left):,} images are answered in {path}", file=sys.stderr)
        if left:
            records = _answer(left, names, options, decoding, runtime)
            failed += sum("error" in each for each in answers.append(records))
    return failed


def _answer(
    images: Sequence[str],
    names: Mapping[str, str],
    options: CaptionOptions,
    decoding: DecodingOptions,
    runtime: RuntimeOptions,
) -> Iterator[Record]:
    """A record for each image, in order; its heatmap is written first."""
    captioner = _load(options, runtime)
    stream = captioner.stream(
        images, batch_size=options.batch_size, on_error="yield", **to_dict(decoding)
    )
    scrolls = options.output is None and sys.stdout.isatty()  # captions show how far it is
    with tqdm(total=len(images), unit="image", leave=False, disable=scrolls or None) as bar:
        for image, found in zip(images, stream, strict=True):
            if isinstance(found, InputError):
                yield {"image": image, "error": str(found)}
            else:
                if options.heatmap and found.words:
                    name = f"{names[image]}.{options.heatmap_format}"
                    found.save_heatmap(options.heatmap / name)
                yield record(image, found)
            bar.update()


def _load(options: CaptionOptions, runtime: RuntimeOptions) -> "Captioner":
    from ..captioner import Captioner

    captioner = Captioner.from_pretrained(
        options.checkpoint, runtime.device, runtime.precision, runtime.compile
    )
    if options.heatmap and not captioner.model.has_attention:
        which = " + ".join(map(str, options.checkpoint))
        raise InputError(f"{which} has no attention, so --heatmap has nothing to show")
    return captioner


def _as_text(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    """A line for each caption, alternatives below their best; errors go to stderr."""
    for each in records:
        if "error" in each:
            print(each["error"], file=sys.stderr, flush=True)
            yield "", each
            continue
        image = each["image"].encode("utf-8", "replace").decode()  # odd names get a "?"
        several = [each, *each.get("alternatives", ())]
        yield "".join(f"{image}\t{one['caption']}\n" for one in several), each


def _as_json(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    before = "[\n"
    for each in records:
        yield before + json.dumps(each), each
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n", {}


def _as_jsonl(records: Iterable[Record]) -> Iterator[tuple[str, Record]]:
    for each in records:
        yield json.dumps(each) + "\n", each


_FORMATS = {"text": _as_text, "json": _as_json, "jsonl": _as_jsonl}
