"""Caption millions of images with torchrun, on one machine or several.

torchrun [...] torchrun_captions.py CHECKPOINT DIR OUT

Process RANK writes OUT/captions-RANK.jsonl: image, caption and score, or image and error for an
image that cannot be read. Run again with the same number of processes, each one continues where
its file ends.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from captioner import Captioner, InputError
from captioner.data.image_paths import find_images

BATCH_SIZE = 64


def caption(captioner: Captioner, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each path; an image that cannot be read has an error in its row."""
    stream = captioner.stream(paths, batch_size=BATCH_SIZE, on_error="yield")
    for path, result in zip(paths, stream, strict=True):
        if isinstance(result, InputError):
            yield {"image": path, "error": str(result)}
        else:
            yield {"image": path, "caption": result.text, "score": result.score}


def main(checkpoint: str, directory: str, out: str) -> None:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    images = find_images([directory])
    part = images[rank::world_size]
    Path(out).mkdir(parents=True, exist_ok=True)
    with (Path(out) / f"captions-{rank}.jsonl").open("a+b") as file:
        file.seek(0)
        lines = [line for line in file if line.endswith(b"\n")]
        file.truncate(sum(map(len, lines)))  # a crash may leave an incomplete line
        finished = {json.loads(line)["image"] for line in lines}
        remaining = [path for path in part if path not in finished]
        done = len(part) - len(remaining)
        print(f"rank {rank} of {world_size}: {len(part)} images, {done} done before")
        cuda = torch.cuda.is_available()
        device = f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu"
        for row in caption(Captioner.from_pretrained(checkpoint, device), remaining):
            file.write(json.dumps(row).encode() + b"\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
