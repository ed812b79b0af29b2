"""Caption millions of images with Ray Data.

python ray_captions.py CHECKPOINT DIR OUT [ACTORS [BATCH_SIZE]]

Writes JSON lines to the directory OUT: image, caption and score, or image and error for an image
that cannot be read. Run again, it captions the images that have no line yet.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray

from captioner import Captioner, InputError
from captioner.data.image_paths import find_images


class CaptionBatch:
    """Captions batches of paths; each actor creates one, so that it loads the model once."""

    def __init__(self, checkpoint: str) -> None:
        self.captioner = Captioner.from_pretrained(checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        paths = [str(path) for path in batch["image"]]
        results = list(self.captioner.stream(paths, batch_size=len(paths), on_error="yield"))
        captions = [None if isinstance(each, InputError) else each for each in results]
        return {
            "image": paths,
            "caption": [caption and caption.text for caption in captions],
            "score": [caption and caption.score for caption in captions],
            "error": [str(each) if isinstance(each, InputError) else None for each in results],
        }


def done(out: Path) -> set[str]:
    """The images that have a complete line; a crash may leave an incomplete one."""
    lines = (line for file in out.glob("*.json") for line in file.open(encoding="utf-8"))
    return {json.loads(line)["image"] for line in lines if line.endswith("\n")}


def main(
    checkpoint: str, directory: str, out: str, actors: str = "1", batch_size: str = "64"
) -> None:
    images = find_images([directory])
    finished = done(Path(out))
    rows = [{"image": path} for path in images if path not in finished]
    print(f"{len(images)} images, {len(images) - len(rows)} done before")
    if rows:
        ray.data.from_items(rows).map_batches(
            CaptionBatch,
            fn_constructor_args=(checkpoint,),
            compute=ray.data.ActorPoolStrategy(size=int(actors)),
            batch_size=int(batch_size),
            num_cpus=1,  # with GPUs: num_gpus=1
        ).write_json(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
