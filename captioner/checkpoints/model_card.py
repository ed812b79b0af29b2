"""The card of a model that is shared: what it is, from which data, how good, how to use it.

Written from the config of its checkpoint alone.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..metrics.captions import SCORES
from ..models.captioning.options import ModelOptions
from ..options import from_dict

PAPERS = """\
- Oriol Vinyals, Alexander Toshev, Samy Bengio, Dumitru Erhan: *Show and Tell: A Neural Image
  Caption Generator*, CVPR 2015, [arXiv:1411.4555](https://arxiv.org/abs/1411.4555)
- Kelvin Xu, Jimmy Ba, Ryan Kiros, Kyunghyun Cho, Aaron Courville, Ruslan Salakhutdinov, Richard
  Zemel, Yoshua Bengio: *Show, Attend and Tell: Neural Image Caption Generation with Visual
  Attention*, ICML 2015, [arXiv:1502.03044](https://arxiv.org/abs/1502.03044)"""


def model_card(
    config: Mapping[str, Any], name: str, license: str, *, words: int, parameters: int
) -> str:
    """Markdown with the hub's metadata at its head.

    name: where the model will be found. license: the hub's word for that of the weights. words,
    parameters: how many. Raises InputError for a license that is no such word.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise InputError(f"license must be one of the hub's words like apache-2.0, got {license!r}")
    options = from_dict(ModelOptions, config["model"])
    return f"""\
---
license: {license}
library_name: captioner
pipeline_tag: image-to-text
tags:
- image-captioning
- {"show-attend-and-tell" if options.attention else "show-and-tell"}
---

# {name}

{_what(options)}

## Use

```python
from captioner import Captioner

captioner = Captioner.from_pretrained("{name}")
print(captioner.caption("photo.jpg").text)
```

or `python -m captioner caption photo.jpg --checkpoint {name}`. {_decoding(DecodingOptions())}

## Model

{_model(config, options, words, parameters)}

## Data

{_data(config["data"])}

## Scores

{_scores(config)}

## Limits

{_limits(options, config["transform"]["size"], words)}

## Papers

{PAPERS}
"""


def _what(options: ModelOptions) -> str:
    if not options.attention:
        return "Writes a sentence about an image: Show and Tell (Vinyals et al. 2015)."
    kind = "hard" if options.hard_attention else "soft"
    return (
        "Writes a sentence about an image and tells where it looked for each word: Show, Attend "
        f"and Tell (Xu et al. 2015) with {kind} attention."
    )


def _decoding(options: DecodingOptions) -> str:
    return (
        f"Unless told otherwise it searches with {options.beams} hypotheses and a length penalty "
        f"of {options.penalty}, for captions of at most {options.max_length} words with the end."
    )


def _model(config: Mapping[str, Any], options: ModelOptions, words: int, parameters: int) -> str:
    encoder, transform = config["encoder"], config["transform"]
    weights, stage = encoder.get("encoder_weights"), encoder.get("fine_tune_encoder")
    learned = f"trained from stage {stage} on" if stage is not None else "frozen"
    if weights is None and stage is None and encoder["encoder"] == "small_cnn":
        learned = "trained from scratch"
    attention = f", attention {options.attention_size}" if options.attention else ""
    rows = {
        "encoder": f"`{encoder['encoder']}`, {learned}" + (f", `{weights}`" if weights else ""),
        "decoder": f"LSTM {options.hidden_size}, embeddings {options.embedding_size}{attention}",
        "vocabulary": f"{words:,} words",
        "parameters": f"{parameters:,}",
        "images": f"squashed to {transform['size']} x {transform['size']}, RGB, less "
        f"{transform['mean']}, over {transform['std']}",
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())])


def _data(data: Mapping[str, Any]) -> str:
    return (
        f"Trained on `{data['name']}` (read as `{data['format']}`), the words that occur at least "
        f"{data['min_count']} times. Source, splits and captions have the fingerprint "
        f"`{data['fingerprint']}`. Their licence is their publishers', and may bind the model, too."
    )


def _scores(config: Mapping[str, Any]) -> str:
    found = config.get("scores", {})
    scores = [name for name in SCORES if name in found]
    if not scores:
        return "None were stored."
    lines = [
        f"On the validation split, by whose {config['training']['watch']} the best epoch was "
        f"chosen, beam size {config['training']['beam_size']}; other images usually score lower.",
        "",
        f"| {' | '.join(scores)} |",
        "| " + " | ".join("---" for _ in scores) + " |",
        f"| {' | '.join(f'{found[name]:.1f}' for name in scores)} |",
        "",
        f"`{config['signature']}`" if "signature" in config else "Their signature was not stored.",
    ]
    return "\n".join(lines)


def _limits(options: ModelOptions, side: int, words: int) -> str:
    lines = [
        f"It has {words:,} words and writes a sentence about any image, also about one it has no "
        "words for. What does not resemble the images it was trained on is described wrongly, "
        "in the same assured tone.",
        "It says of people what the training captions said, with their prejudices. Do not rely on "
        "it where a wrong sentence does harm.",
        f"It sees {side} x {side} pixels: what is small is lost, and writing is not read.",
    ]
    if options.attention:
        lines.append("The maps tell where it looked, not why it chose a word.")
    return "\n".join(f"- {line}" for line in lines)
