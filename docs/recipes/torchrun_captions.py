"""Caption millions of images with torchrun, on one machine or many.

torchrun [...] torchrun_captions.py CHECKPOINT DIR OUT

Each process writes OUT/captions-RANK.jsonl: image, caption and score, or image and error if it
cannot be read. Started again with the same number of processes, each continues its file.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from captioner import Captioner, InputError
from captioner.data.images import load_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
BATCH = 64


def caption(captioner: Captioner, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each path, computed in batches; a bad image gets an error in its row."""
    for first in range(0, len(paths), BATCH):
        images, rows = [], []
        for path in paths[first : first + BATCH]:
            rows.append({"image": path})
            try:
                images.append(captioner.transform.squash(load_image(path)))
            except InputError as error:
                rows[-1]["error"] = str(error)
        captions = iter(captioner.caption(images, batch_size=BATCH))
        for row in rows:
            if "error" not in row:
                best = next(captions)
                row |= {"caption": best.text, "score": best.score}
            yield row


def main(checkpoint: str, directory: str, out: str) -> None:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ["LOCAL_RANK"])
    images = sorted(str(p) for p in Path(directory).rglob("*") if p.suffix.lower() in SUFFIXES)
    share = images[rank::world]
    Path(out).mkdir(parents=True, exist_ok=True)
    with (Path(out) / f"captions-{rank}.jsonl").open("a+b") as file:
        file.seek(0)
        lines = [line for line in file if line.endswith(b"\n")]
        file.truncate(sum(map(len, lines)))  # a line that a crash truncated
        done = {json.loads(line)["image"] for line in lines}
        rest = [path for path in share if path not in done]
        print(f"rank {rank} of {world}: {len(share)} images, {len(share) - len(rest)} done before")
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        for row in caption(Captioner.from_pretrained(checkpoint, device), rest):
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
