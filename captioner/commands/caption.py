"""`captioner caption`: a line for each caption, and heatmaps."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..decoding_options import DecodingOptions
from ..devices import PRECISIONS
from ..errors import InputError
from ..heatmaps import ENDINGS
from ..options import add_options, check_at_least, from_arguments, option, to_dict

EXAMPLE = "captioner caption dog.jpg --checkpoint checkpoints/RUN --heatmap maps"


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    add_options(parser, CaptionOptions, "options")
    add_options(parser, DecodingOptions, "decoding")


def run(arguments: argparse.Namespace) -> None:
    caption_pictures(
        arguments.pictures,
        from_arguments(CaptionOptions, arguments),
        from_arguments(DecodingOptions, arguments),
    )


def caption_pictures(
    pictures: Sequence[Path], options: CaptionOptions, decoding: DecodingOptions
) -> None:
    """One line per caption: the picture, a tab, the text; alternatives below their best."""
    from ..captioner import Captioner

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
