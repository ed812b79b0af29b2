"""Caption a split with a trained model and score the captions: python evaluate.py --help."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner import checkpoint, demo, metrics
from captioner.batches import Pictures
from captioner.captioner import Captioner
from captioner.data import READERS, split_name
from captioner.devices import PRECISIONS
from captioner.errors import InputError, run_command
from captioner.evaluation import Evaluation, evaluate
from captioner.features import PictureFiles
from captioner.filters import DecodingOptions
from captioner.loading import WORKERS
from captioner.options import add_options, check_at_least, from_arguments, option
from captioner.runs import CHECKPOINTS, fingerprint, load_data, write_whole


@dataclass(frozen=True)
class EvaluationOptions:
    """What to caption, with which model, and where the answers go."""

    checkpoint: tuple[Path, ...] = option(
        None, "run or checkpoint directory (required); several caption together"
    )
    split: str = option("val", "train, val (or dev) or test")
    data: Path | None = option(None, "data folder; the one of the first checkpoint unless given")
    format: str | None = option(None, "force the layout of the folder", choices=tuple(READERS))
    output: Path | None = option(None, "folder for captions.json and scores.json")
    batch_size: int = option(64, "pictures captioned at once")
    workers: int = option(WORKERS, "threads that load ahead")
    cache: Path = option(CHECKPOINTS / ".cache", "folder of the demo pictures")
    device: str | None = option(None, "cpu, cuda or cuda:N; CUDA where there is one unless given")
    precision: str = option("float32", "auto: bfloat16 where it is faster", choices=PRECISIONS)
    compile: bool = option(False, "fuse the steps of decoding with torch.compile")

    def __post_init__(self) -> None:
        check_at_least(self, 1, "batch_size")
        check_at_least(self, 0, "workers")


def parse(argv: Sequence[str] | None) -> tuple[EvaluationOptions, DecodingOptions]:
    parser = argparse.ArgumentParser(
        description="Caption a split and score the captions.",
        epilog="Without --output the files go to evaluation-SPLIT in the folder of the run; "
        "several checkpoints need --output.",
    )
    add_options(parser, EvaluationOptions, "evaluation")
    add_options(parser, DecodingOptions, "decoding")
    arguments = parser.parse_args(argv)
    if arguments.checkpoint is None:
        parser.error("--checkpoint is required, for example checkpoints/demo-attention")
    options = from_arguments(EvaluationOptions, arguments)
    return options, from_arguments(DecodingOptions, arguments)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the scores and write them; raises InputError for users' mistakes."""
    options, decoding = parse(argv)
    split = split_name(options.split)
    if decoding.num_captions != 1:
        raise InputError("evaluation scores one caption a picture; leave --num-captions at 1")
    if len(options.checkpoint) > 1 and options.output is None:
        raise InputError("several checkpoints share no folder; name one for the files by --output")
    read = [checkpoint.load(path) for path in options.checkpoint]
    data = load_data(*data_source(options, read[0].config), options.cache)
    if options.data is None and fingerprint(data) != read[0].config["data"]["fingerprint"]:
        print("note: pictures, splits or captions have changed since the model was trained")
    examples = data.split(split)
    captioner = Captioner.from_checkpoints(read, options.device, options.precision, options.compile)
    folder = options.output or default_output(read[0].path, split)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise InputError(f"--output {folder} cannot be made a folder: {error.strerror}") from error
    files = PictureFiles([example.path for example in examples], captioner.transform)
    result = evaluate(
        captioner.model,
        captioner.vocabulary,
        examples,
        Pictures(files.load, are_features=False),
        decoding,
        batch_size=options.batch_size,
        workers=options.workers,
        precision=options.precision,
        shapes=demo.read_shapes(data.root, split),
    )
    models = " + ".join(str(each.path) for each in read)
    print(f"{models} on {data.name}, {split} split, {len(examples)} pictures")
    print(result.describe(metrics.signature([example.captions for example in examples])))
    write_results(folder, result)


def default_output(checkpoint: Path, split: str) -> Path:
    """evaluation-SPLIT in the folder of the run that the checkpoint is of."""
    place = checkpoint.resolve()
    run = place.parent if place.name in ("best", "last", ".best.old", ".last.old") else place
    return run / f"evaluation-{split}"


def data_source(
    options: EvaluationOptions, config: dict[str, Any]
) -> tuple[Path | None, str | None]:
    """Where the data is: as asked, or where the checkpoint was trained (None: the demo)."""
    if options.data is not None:
        return options.data, options.format
    if options.format is not None:
        raise InputError("--format needs --data")
    trained_on = config["data"]
    if trained_on["path"] is None:
        return None, None
    if not Path(trained_on["path"]).is_dir():
        raise InputError(f"{trained_on['path']}, where the model was trained, is gone; use --data")
    return Path(trained_on["path"]), trained_on["format"]


def write_results(folder: Path, result: Evaluation) -> None:
    """captions.json (COCO results) and scores.json (scores and statistics by name)."""
    captions = [{"image_id": key, "caption": text} for key, text in result.texts.items()]
    for name, content in (("captions.json", captions), ("scores.json", result.numbers)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        write_whole(folder / name, text + "\n")
    print(f"captions and scores: {folder}")


if __name__ == "__main__":
    run_command(main)
