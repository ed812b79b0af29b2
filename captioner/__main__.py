"""The `captioner` command: `caption` describes pictures, `serve` does so on a page and for other
programs, `data` tells what a data set holds, `demo-data` writes the demo's.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import demo
from .captioner import Captioner
from .data import READERS, read_captions
from .devices import PRECISIONS
from .errors import InputError, run_command
from .filters import DecodingOptions
from .heatmaps import ENDINGS
from .inspection import describe_data, write_jsonl
from .options import add_options, check_at_least, from_arguments, option, to_dict
from .server import ServeOptions, serve
from .wire import Limits


@dataclass(frozen=True)
class CaptionOptions:
    """What to caption, and with what."""

    checkpoint: Path = option(Path("checkpoints/demo-attention"), "run or checkpoint directory")
    heatmap: Path | None = option(None, "folder for one heatmap per picture")
    heatmap_format: str = option(
        "png", "figure, animation (gif, webp) or bare maps (npy)", choices=ENDINGS
    )
    batch_size: int = option(32, "pictures captioned at once")
    device: str | None = option(None, "cpu, cuda or cuda:N; CUDA where there is one unless given")
    precision: str = option("float32", "auto: bfloat16 where it is faster", choices=PRECISIONS)
    compile: bool = option(False, "fuse the steps of decoding with torch.compile")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(
        prog="captioner", description="Describe pictures with a trained model."
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    caption = commands.add_parser(
        "caption",
        help="print a caption for each picture",
        epilog="example: captioner caption dog.jpg --checkpoint checkpoints/RUN --heatmap maps",
    )
    caption.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    add_options(caption, CaptionOptions, "options")
    add_options(caption, DecodingOptions, "decoding")
    service = commands.add_parser(
        "serve",
        help="caption pictures on a page and for other programs",
        epilog="example: captioner serve checkpoints/RUN --port 8080",
    )
    service.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    add_options(service, ServeOptions, "options")
    add_options(service, Limits, "limits")
    demo_data = commands.add_parser("demo-data", help="write the demo data set as a COCO folder")
    demo_data.add_argument("directory", type=Path, metavar="DIR")
    data = commands.add_parser(
        "data",
        help="print what a data set holds, and what is wrong in it",
        epilog="example: captioner data flickr8k --convert jsonl flickr8k-jsonl",
    )
    data.add_argument("path", type=Path, metavar="PATH")
    data.add_argument("--format", choices=tuple(READERS), help="force the layout of the folder")
    data.add_argument(
        "--convert",
        nargs=2,
        metavar=("jsonl", "OUT"),
        help="write it to OUT/captions.jsonl, without what is wrong",
    )
    return main


def main(argv: Sequence[str] | None = None) -> None:
    """Raises InputError for users' mistakes."""
    arguments = parser().parse_args(argv)
    if arguments.command == "demo-data":
        demo.write_demo(arguments.directory)
        print(f"demo data: {arguments.directory}")
    elif arguments.command == "serve":
        serve(
            arguments.checkpoint,
            from_arguments(ServeOptions, arguments),
            from_arguments(Limits, arguments),
        )
    elif arguments.command == "data":
        inspect_data(arguments.path, arguments.format, arguments.convert)
    else:
        caption_pictures(
            arguments.pictures,
            from_arguments(CaptionOptions, arguments),
            from_arguments(DecodingOptions, arguments),
        )


def inspect_data(path: Path, format: str | None, convert: Sequence[str] | None) -> None:
    """Print what lies at `path`, and write it as JSONL where that is wanted."""
    if convert and convert[0] != "jsonl":
        raise InputError(f"--convert writes jsonl, got {convert[0]!r}")
    data = read_captions(path, format, on_error="skip")
    print(describe_data(data))
    if convert:
        print(f"written: {write_jsonl(data, Path(convert[1]))}")


def caption_pictures(
    pictures: Sequence[Path], options: CaptionOptions, decoding: DecodingOptions
) -> None:
    """One line per caption: the picture, a tab, the text; alternatives below their best."""
    captioner = Captioner.from_pretrained(
        options.checkpoint, options.device, options.precision, options.compile
    )
    if options.heatmap and not captioner.model.attends:
        raise InputError(f"{options.checkpoint} has no attention, so --heatmap has nothing to show")
    stems = Counter(picture.stem for picture in pictures)
    captions = captioner.stream(pictures, batch_size=options.batch_size, **to_dict(decoding))
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        for each in (caption, *caption.alternatives):  # print as they come
            print(f"{picture}\t{each.text}", flush=True)
        if options.heatmap:
            name = picture.stem if stems[picture.stem] == 1 else f"{picture.stem}-{number}"
            caption.save_heatmap(options.heatmap / f"{name}.{options.heatmap_format}")
    if options.heatmap:
        print(f"heatmaps: {options.heatmap}")


def command() -> None:
    """The entry point that installation puts on the path."""
    run_command(main)


if __name__ == "__main__":
    command()
