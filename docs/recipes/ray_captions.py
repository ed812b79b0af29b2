"""Caption millions of images with Ray Data.

python ray_captions.py CHECKPOINT DIR OUT [ACTORS [BATCH_SIZE]]

Writes JSON lines into the directory OUT: image, caption and score, or image and error if it cannot
be read. Started again, it continues with the images that have no line yet.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import ray

from captioner import Captioner, InputError
from captioner.data.images import load_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Captions:
    """The state of an actor, which loads the model once."""

    def __init__(self, checkpoint: str) -> None:
        self.captioner = Captioner.from_pretrained(checkpoint)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Caption a batch of paths; a bad image gets an error in its row."""
        paths, images, errors = [str(path) for path in batch["image"]], {}, {}
        for path in paths:
            try:
                images[path] = self.captioner.transform.squash(load_image(path))
            except InputError as error:
                errors[path] = str(error)
        results = self.captioner.caption(list(images.values()), batch_size=len(paths))
        captions = dict(zip(images, results, strict=True))
        return {
            "image": paths,
            "caption": [captions[path].text if path in captions else None for path in paths],
            "score": [captions[path].score if path in captions else None for path in paths],
            "error": [errors.get(path) for path in paths],
        }


def done(out: Path) -> set[str]:
    """The images that have a complete line."""
    lines = (line for file in out.glob("*.json") for line in file.open(encoding="utf-8"))
    return {json.loads(line)["image"] for line in lines if line.endswith("\n")}


def main(
    checkpoint: str, directory: str, out: str, actors: str = "1", batch_size: str = "64"
) -> None:
    images = sorted(str(p) for p in Path(directory).rglob("*") if p.suffix.lower() in SUFFIXES)
    finished = done(Path(out))
    rows = [{"image": path} for path in images if path not in finished]
    print(f"{len(images)} images, {len(images) - len(rows)} done before")
    if rows:
        ray.data.from_items(rows).map_batches(
            Captions,
            fn_constructor_args=(checkpoint,),
            compute=ray.data.ActorPoolStrategy(size=int(actors)),
            batch_size=int(batch_size),
            num_cpus=1,  # with GPUs: num_gpus=1
        ).write_json(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
