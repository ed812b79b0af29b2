"""Stand-ins for names that pages use without creating them, such as `dog.jpg` or `DIR`.

`made` is a directory with a few demo scenes in `demo` and a run trained on them in `checkpoints`.
Each stand-in is a function of `made` and of the path to create.
"""

import json
import re
import shutil
from pathlib import Path

import torch
import torchvision
from PIL import Image


def link(source):
    return lambda made, path: path.symlink_to(made / source)


def copy(source):
    return lambda made, path: shutil.copytree(made / source, path)


def save_image(made, path):
    with Image.open(made / "demo/val/000001.png") as image:
        image.save(path, "JPEG" if path.suffix == ".jpg" else "PNG")


def save_mobilenet(_, path):
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), path)


def save_kaggle(made, path):
    shutil.copytree(made / "demo/train", path / "Images")
    rows = [f"{image.name},a shape\n" for image in sorted((path / "Images").iterdir())]
    (path / "captions.txt").write_text("".join(["image,caption\n", *rows]))


def save_results(made, path):
    content = json.loads((made / "demo/annotations/captions_val.json").read_text())
    captions = {row["image_id"]: row["caption"] for row in content["annotations"]}
    rows = [{"image_id": key, "caption": text} for key, text in captions.items()]
    path.write_text(json.dumps(rows))


def save_tags(made, path):
    shutil.copytree(made / "demo/train", path.parent / "tagged")
    names = sorted(image.name for image in (made / "demo/train").iterdir())
    rows = [
        f"tagged/{name},{'sea; sky' if i % 2 else 'sky; dry land'}" for i, name in enumerate(names)
    ]
    path.write_text("\n".join(["image,tags", *rows]) + "\n")


STAND_INS = {
    "DIR": copy("demo"),
    "PATH": copy("demo"),
    "kaggle": save_kaggle,
    "IMAGE": save_image,
    "dog.jpg": save_image,
    "photos": copy("demo/val"),
    "mobilenet_v2.pth": save_mobilenet,
    "captions_val2017.json": link("demo/annotations/captions_val.json"),
    "RESULTS.json": save_results,
    "tags.csv": save_tags,
    "A.json": save_results,
    "B.json": save_results,
    "checkpoints/demo-attention": copy("checkpoints/demo-attention"),
    "checkpoints/RUN": copy("checkpoints/demo-attention"),
    "checkpoints/A": copy("checkpoints/demo-attention"),
    "checkpoints/B": copy("checkpoints/demo-attention"),
}


def provide(text, made):
    """Create in the working directory what the text names and does not exist yet."""
    for word in re.findall(r"[\w./-]+", text):
        for name, create in STAND_INS.items():
            path = Path(name)
            if word.rstrip(".").startswith(name) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                create(made, path)
