"""Scores and scoring time compared with pycocoevalcap: python -m benchmarks.scores.

Captions and references come from one file with several captions per image: every third image is
scored with a caption of another image, the others with one of their own references.
"""

import argparse
import random
import time
from pathlib import Path

from benchmarks import measure
from captioner.data.caption_files import Id, read_caption_file
from captioner.metrics import bootstrap
from captioner.metrics import captions as metrics


def draw(captions: dict[Id, list[str]], images: int) -> tuple[dict[Id, str], dict[Id, list[str]]]:
    """Return captions and references for `images` images, cycling through those in the file."""
    rng, ids = random.Random(0), list(captions)
    hypotheses: dict[Id, str] = {}
    references: dict[Id, list[str]] = {}
    for place in range(images):
        own = captions[ids[place % len(ids)]]
        chosen = rng.randrange(len(own))
        foreign = captions[rng.choice(ids)][0]
        hypotheses[place] = foreign if place % 3 == 0 else own[chosen]
        references[place] = own
    return hypotheses, references


def official(
    hypotheses: dict[Id, str], references: dict[Id, list[str]], meteor: bool
) -> dict[str, float]:
    """Compute the scores with pycocoevalcap alone, including its Java tokenizer."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    java = PTBTokenizer()
    tokenized = java.tokenize({i: [{"caption": text}] for i, text in hypotheses.items()})
    targets = java.tokenize({i: [{"caption": t} for t in ts] for i, ts in references.items()})
    bleu, _ = Bleu(4).compute_score(targets, tokenized, verbose=0)
    others = [*([Meteor()] if meteor else []), Rouge(), Cider()]
    values = [*bleu, *(scorer.compute_score(targets, tokenized)[0] for scorer in others)]
    names = [name for name in metrics.SCORES if meteor or name != "METEOR"]
    return {name: 100.0 * float(value) for name, value in zip(names, values, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path, help="COCO annotations, .jsonl or .csv")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--samples", type=int, default=1000, help="number of bootstrap samples")
    parser.add_argument(
        "--official", action="store_true", help="compare with pycocoevalcap; needs Java"
    )
    parser.add_argument("--meteor", action="store_true", help="include METEOR; needs Java")
    chosen = parser.parse_args()
    wanted = metrics.WITHOUT_JAVA + ("meteor",) * chosen.meteor
    hypotheses, references = draw(read_caption_file(chosen.captions), chosen.images)
    number = sum(map(len, references.values()))
    print(f"{len(hypotheses)} images, {number} references\n")
    wall, cpu = time.perf_counter(), time.process_time()
    ours = metrics.compute_scores(hypotheses, references, wanted)
    found = ours.corpus
    scored = (time.perf_counter() - wall, time.process_time() - cpu)
    wall, cpu = time.perf_counter(), time.process_time()
    sure = bootstrap.intervals(ours, chosen.samples)
    drawn = (time.perf_counter() - wall, time.process_time() - cpu)
    theirs = official(hypotheses, references, chosen.meteor) if chosen.official else {}
    rows = [
        [name, f"{value:.6f}", f"{theirs[name]:.6f}" if theirs else "-", f"{sure[name]:.2f}"]
        for name, value in found.items()
    ]
    print(measure.table(["score", "here", "pycocoevalcap", "95 % interval"], rows) + "\n")
    names = ("tokenising and scoring", f"{chosen.samples} bootstrap samples")
    times = [[name, *each] for name, each in zip(names, (scored, drawn), strict=True)]
    print(measure.table(["", "seconds", "CPU seconds"], times))


if __name__ == "__main__":
    main()
