"""`captioner export`: export a captioning model as programs that run without this package."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from ..atomic_io import check_absent
from ..errors import InputError
from ..options import add_options, from_arguments, option
from . import add_checkpoints

EXAMPLE = "captioner export checkpoints/RUN --onnx captioner-onnx"


@dataclass(frozen=True)
class ExportOptions:
    """Export formats and their directories."""

    onnx: Path | None = option(
        None, "new directory for encoder.onnx, start.onnx, step.onnx and captioner.json"
    )
    torch: Path | None = option(
        None, "new directory for encoder.pt2, start.pt2, step.pt2 and captioner.json"
    )

    def __post_init__(self) -> None:
        if self.onnx is None and self.torch is None:
            raise InputError("no export format was selected; pass --onnx DIR or --torch DIR")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} CHECKPOINT... [option...]"
    add_checkpoints(parser)
    add_options(parser, ExportOptions, "options")


def run(arguments: argparse.Namespace) -> None:
    from ..captioner import Captioner
    from ..inference.export import export_onnx, export_torch

    options = from_arguments(ExportOptions, arguments)
    exports = [(export_onnx, options.onnx), (export_torch, options.torch)]
    chosen = [(export, directory) for export, directory in exports if directory]
    for _, directory in chosen:  # check all directories before the exports, which are slow
        check_absent(directory)
    captioner = Captioner.from_pretrained(arguments.checkpoint, "cpu")
    for export, directory in chosen:
        export(captioner, directory)
        print(f"written: {directory}")
