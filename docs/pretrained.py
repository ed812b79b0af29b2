"""Make the models that come with the package, which takes about an hour on two cores:

    python docs/pretrained.py --data flickr8k --encoder-weights mobilenet_v2.pth

trains the models of `captioner.pretrained`, unless their runs exist already, stores them in 8 bits
in captioner/pretrained/, compares them with the originals on the dev split, and adds the terms and
the comparison to their cards.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from captioner import Captioner, Linker, TrainConfig, train
from captioner.__main__ import main as captioner
from captioner.checkpoints.runs import CHECKPOINTS, read_log
from captioner.data.readers import load_data
from captioner.metrics.retrieval import retrieval_scores
from captioner.pretrained import CAPTIONER, JOINT, NAMES, SPATIAL

TARGET = Path(__file__).parents[1] / "captioner" / "pretrained"
RUNS: dict[str, dict[str, Any]] = {
    CAPTIONER: {"attention": True, "seed": 1},
    JOINT: {"system": "joint"},
    SPATIAL: {"system": "spatial"},
}
TERMS = """\
## Terms

The training images and captions, Flickr8k (Hodosh, Young and Hockenmaier 2013), are for
non-commercial research and education, and this model is shared for the same purposes. The encoder
is MobileNetV2 trained on ImageNet (Apache-2.0).
"""
SUBJECTS = """\
- The training photographs show people and dogs, mostly outdoors, in sport and play. Expect poor
  results on other subjects.
"""
SAMPLES = 1000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="Flickr8k")
    parser.add_argument("--encoder-weights", required=True, help="weights of mobilenet_v2")
    parser.add_argument("--runs", nargs=3, default=NAMES, help="runs of the three models")
    arguments = parser.parse_args()
    photographs = {"data": arguments.data, "encoder": "mobilenet_v2"}
    photographs["encoder_weights"] = arguments.encoder_weights
    for name, run in zip(NAMES, arguments.runs, strict=True):
        if not (CHECKPOINTS / run).exists():
            train(TrainConfig.from_options(run=run, **photographs, **RUNS[name]))
        shutil.rmtree(TARGET / name, ignore_errors=True)
        source = CHECKPOINTS / run
        options: dict[str, Any] = {"license": "other", "name": name, "compact": True}
        if name == CAPTIONER:
            Captioner.from_pretrained(source).save_pretrained(TARGET / name, **options)
        else:
            options["encoder_of"] = TARGET / CAPTIONER
            Linker.from_pretrained(source).save_pretrained(TARGET / name, **options)
        compare = compare_captions if name == CAPTIONER else compare_retrieval
        complete(
            TARGET / name / "README.md", source, compare(source, TARGET / name, arguments.data)
        )


def complete(card: Path, run: Path, table: str) -> None:
    """Add a comparison, the cost of training, the terms and the subjects to a card."""
    parts = ("training_seconds", "evaluation_seconds")
    seconds = sum(row[part] for row in read_log(run / "log.jsonl") for part in parts)
    minutes = max(1, round(seconds / 60))
    cost = f"Minutes of training on two cores shared with other programs: {minutes}.\n"
    before, heading, limits = card.read_text(encoding="utf-8").partition("## Limitations\n\n")
    card.write_text(
        f"{before}{table}\n{cost}\n{TERMS}\n{heading}{SUBJECTS}{limits}", encoding="utf-8"
    )


def compare_captions(whole: Path, compact: Path, data: Path) -> str:
    """Return a table of the scores of both checkpoints on the dev split, with intervals."""
    rows = []
    for title, path, precision in (
        ("original", whole, "float32"),
        ("this model", compact, "float32"),
        ("this model, `--precision int8`", compact, "int8"),
    ):
        with tempfile.TemporaryDirectory() as output:
            words = ["evaluate", "--checkpoint", str(path), "--data", str(data), "--split", "dev"]
            words += ["--beam-size", "5", "--metrics", "bleu,cider", "--bootstrap", str(SAMPLES)]
            captioner([*words, "--precision", precision, "--output", f"{output}/scores"])
            found = json.loads(Path(output, "scores", "scores.json").read_text())["intervals"]
        cells = [
            f"{each['value']:.2f} ({each['low']:.1f} to {each['high']:.1f})"
            for each in (found["BLEU-4"], found["CIDEr"])
        ]
        rows.append(f"| {title} | {cells[0]} | {cells[1]} |")
    heading = (
        "In 8 bits and as trained, on the 1,000 dev images, beam size 5, with 95 % intervals from "
        f"{SAMPLES:,} bootstrap samples of the images:\n\n"
        "| | BLEU-4 | CIDEr |\n| --- | --- | --- |\n"
    )
    return heading + "\n".join(rows) + "\n"


def compare_retrieval(whole: Path, compact: Path, data: Path) -> str:
    """Return a table of the recalls of both checkpoints on the dev split, with intervals."""
    examples = load_data(data, None, CHECKPOINTS / ".cache").split("dev")
    images = [example.path for example in examples]
    texts = [caption for example in examples for caption in example.captions]
    owner = np.repeat(np.arange(len(examples)), [len(each.captions) for each in examples])
    rows = []
    for title, path in (("original", whole), ("this model", compact)):
        linker = Linker.from_pretrained(path)
        scores = linker.encode_images(images) @ linker.embed(linker.texts.read(texts)).T
        ranks = retrieval_scores(scores, owner, "dev")
        of_texts = np.bincount(owner, ranks.text_to_image < 10) / np.bincount(owner)
        rows.append(f"| {title} | {_interval(ranks.image_to_text < 10)} | {_interval(of_texts)} |")
    heading = (
        "In 8 bits and as trained, on the 1,000 dev images and their captions, R@10 with 95 % "
        f"intervals from {SAMPLES:,} bootstrap samples of the images:\n\n"
        "| | image to text | text to image |\n| --- | --- | --- |\n"
    )
    return heading + "\n".join(rows) + "\n"


def _interval(hits: np.ndarray) -> str:
    """Return a mean in per cent, and its interval over images drawn with replacement."""
    draws = np.random.default_rng(0).integers(len(hits), size=(SAMPLES, len(hits)))
    low, high = np.quantile(hits[draws].mean(1), [0.025, 0.975])
    return f"{100 * hits.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
