"""Model cards for shared checkpoints of linking models, generated from their configs."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from .markdown import cell, check_license, code, one_line, plain

SUMMARIES = {
    "linear": "This model maps images and sentences linearly into one space, in which an image is "
    "close to the sentences that describe it.",
    "joint": "This model embeds images and sentences in one space, in which an image is close to "
    "the sentences that describe it.",
    "regression": "This model predicts the vector of the text that would describe an image.",
    "spatial": "This model scores any word as a label of an image, and shows where in the image "
    "the word is (Kovacs and Bremner 2019).",
    "mcnn": "This model scores how well a sentence describes an image (Ma et al. 2015).",
    "clip": "This model embeds images and sentences in one space; it was not trained by captioner.",
}
COMMANDS = {
    "spatial": ("label photo.jpg", "localize photo.jpg dog"),
    "mcnn": (),
}
SEARCH = ("index photos --output photos.index",)
LIMITATIONS = (
    "Words that the training texts lack are ignored. Expect wrong results for images that differ "
    "from the training images, with the same confidence.",
    "Results for images of people reproduce the biases and stereotypes of the training texts. Do "
    "not use the model where a wrong result could cause harm.",
)


def linking_card(
    config: Mapping[str, Any], name: str, license: str, encoder_of: str | None = None
) -> str:
    """Format the card as Markdown, with metadata for the hub as front matter.

    name: directory or repository from which others will load the model. license: the hub's
    identifier for the licence of the weights. encoder_of: name of the checkpoint in the same
    directory that contains the encoder; None if this one contains it. Raises InputError if
    `license` does not have the form of such an identifier.
    """
    check_license(license)
    own = config.get(str(config["task"])) or {}
    has_images = not own.get("image_vectors")
    name, task = one_line(name), str(config["task"])
    run = shlex.quote(name)
    commands = COMMANDS.get(task, SEARCH) if has_images else ()
    usage = "".join(f"captioner {each} --checkpoint {run}\n" for each in commands)
    if commands == SEARCH:
        usage += "captioner search photos.index 'a dog on a beach'\n"
    example = 'linker.similarity("photo.jpg", ["a dog on a beach", "two people"])'
    if not has_images:  # the user computed the image vectors
        example = 'linker.encode_texts(["a dog on a beach", "two people"]).shape'
    shared = ""
    if encoder_of is not None:
        shared = f"\nThe encoder is in {code(encoder_of)}, which must be in the same directory.\n"
    shell = f"\nOn the command line:\n\n```sh\n{usage}```\n" if usage else ""
    return f"""\
---
license: {license}
library_name: captioner
tags:
- image-text-retrieval
datasets:
- {json.dumps(one_line(config["data"]["name"]))}
---

# {plain(name)}

{SUMMARIES[task]}

## Usage

In Python:

```python
from captioner import Linker

linker = Linker.from_pretrained({json.dumps(name, ensure_ascii=False)})
print({example})
```
{shell}
## Model

{_model(config)}
{shared}
## Training data

The model was trained on {code(config["data"]["name"])} (layout {code(config["data"]["format"])}).
The licence of the training data may also restrict the use of the model.

## Evaluation

{_scores(config)}

## Limitations

{chr(10).join(f"- {each}" for each in LIMITATIONS)}
"""


def _model(config: Mapping[str, Any]) -> str:
    encoder, size = config["encoder"], config["transform"]["size"]
    weights = encoder.get("encoder_weights")
    images = {"Images": "vectors that the user computed"}
    if not (config.get(config["task"]) or {}).get("image_vectors"):
        images = {
            "Encoder": code(encoder["encoder"]) + (f", weights {code(weights)}" if weights else ""),
            "Input": f"RGB, resized to {plain(size)} x {plain(size)} pixels",
        }
    rows = {
        "System": code(config["task"]),
        **images,
        "Options": ", ".join(f"{plain(k)} {plain(v)}" for k, v in config["model"].items()),
    }
    if parameters := config.get("parameters"):
        rows["Parameters"] = f"{parameters['total']:,}, of which {parameters['trained']:,} trained"
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {cell(v)} |" for k, v in rows.items())])


def _scores(config: Mapping[str, Any]) -> str:
    scores = config.get("scores") or {}
    if not scores:
        return "No scores are stored with this model."
    names = " | ".join(map(plain, scores))
    return "\n".join(
        [
            "Scores on the validation split, which may also have been used to select the epoch, so "
            "expect slightly lower scores on other images.",
            "",
            f"| {names} |",
            f"| {' | '.join('---' for _ in scores)} |",
            f"| {' | '.join(f'{value:.3g}' for value in scores.values())} |",
            "",
            f"Protocol: {code(config.get('signature', 'not recorded'))}",
        ]
    )
