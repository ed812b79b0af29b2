"""Model cards for shared captioning checkpoints, generated from their configs.

The config may come from a stranger, so its strings are shown as plain text and cannot add lines or
markup.
"""

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..decoding.options import DecodingOptions
from ..errors import InputError
from ..metrics.captions import SCORES
from ..models.captioning.options import ModelOptions
from ..options import from_dict
from .markdown import cell, check_license, code, one_line, plain

PAPERS = """\
- Oriol Vinyals, Alexander Toshev, Samy Bengio, Dumitru Erhan: *Show and Tell: A Neural Image
  Caption Generator*, CVPR 2015, [arXiv:1411.4555](https://arxiv.org/abs/1411.4555)
- Kelvin Xu, Jimmy Ba, Ryan Kiros, Kyunghyun Cho, Aaron Courville, Ruslan Salakhutdinov, Richard
  Zemel, Yoshua Bengio: *Show, Attend and Tell: Neural Image Caption Generation with Visual
  Attention*, ICML 2015, [arXiv:1502.03044](https://arxiv.org/abs/1502.03044)"""

# A vocabulary that contains most of these words probably comes from English captions.
ENGLISH_WORDS = {"a", "and", "in", "of", "on", "the", "with"}


def guess_language(words: Collection[str]) -> str | None:
    """Return "en" if the vocabulary seems to come from English captions, otherwise None."""
    return "en" if len(ENGLISH_WORDS.intersection(words)) >= 5 else None


def model_card(
    config: Mapping[str, Any],
    name: str,
    license: str,
    *,
    language: str | None,
    words: int,
    parameters: int,
) -> str:
    """Format the card as Markdown, with metadata for the hub as front matter.

    name: repository or directory from which others will load the model. license: the hub's
    identifier for the licence of the weights. language: code of the captions' language, such as
    "en"; None omits it. words: size of the vocabulary. parameters: number of parameters. Raises
    InputError if `license` or `language` does not have the form of such an identifier.
    """
    check_license(license)
    if language is not None and not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", language):
        raise InputError(f"language must be an ISO 639 code, e.g. en, got {language!r}")
    options, name = from_dict(ModelOptions, config["model"]), one_line(name)
    return f"""\
---
{_metadata(config, options, name, license, language)}---

# {plain(name)}

{_summary(options)}

## Usage

In Python:

```python
from captioner import Captioner

captioner = Captioner.from_pretrained({json.dumps(name, ensure_ascii=False)})
print(captioner.caption("photo.jpg").text)
```

On the command line:

```sh
captioner caption photo.jpg --checkpoint {shlex.quote(name)}
```

{_decoding(DecodingOptions())}

## Model

{_model(config, options, words, parameters)}

## Training data

{_data(config)}

## Evaluation

{_scores(config)}

## Limitations

{_limitations(options, plain(config["transform"]["size"]), words)}

## References

{PAPERS}
"""


def _metadata(
    config: Mapping[str, Any],
    options: ModelOptions,
    name: str,
    license: str,
    language: str | None,
) -> str:
    """Return the front matter as YAML; its strings are written as JSON, which is valid YAML."""
    kind = "show-attend-and-tell" if options.attention else "show-and-tell"
    data = json.dumps(one_line(config["data"]["name"]))
    scores = {n: v for n, v in config.get("scores", {}).items() if n in SCORES}
    metrics = {score: score.partition("-")[0].lower() for score in scores}
    lines = [
        *([f"language: {json.dumps(language)}"] if language else []),  # no is a boolean
        f"license: {license}",
        "library_name: captioner",
        "pipeline_tag: image-to-text",
        f"tags:\n- image-captioning\n- {kind}",
        f"datasets:\n- {data}",
    ]
    if scores:
        lines += ["metrics:", *(f"- {metric}" for metric in dict.fromkeys(metrics.values()))]
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:"]
        lines += ["  - task:", "      type: image-to-text", "      name: Image captioning"]
        lines += ["    dataset:", f"      type: {data}", f"      name: {data}"]
        lines += ["      split: validation", "    metrics:"]
        for score, value in scores.items():
            lines += [f"    - type: {metrics[score]}", f"      name: {score}"]
            lines += [f"      value: {value:.2f}"]
    return "".join(f"{line}\n" for line in lines)


def _summary(options: ModelOptions) -> str:
    if not options.attention:
        return (
            "This model describes an image in one sentence. "
            "It is a Show and Tell model (Vinyals et al. 2015)."
        )
    kind = "hard" if options.hard_attention else "soft"
    return (
        "This model describes an image in one sentence and shows where it looked for each word. It "
        f"is a Show, Attend and Tell model (Xu et al. 2015) with {kind} attention."
    )


def _decoding(options: DecodingOptions) -> str:
    return (
        f"By default, captions are decoded with beam size {options.beams} and length penalty "
        f"{options.penalty}, and have at most {options.max_length} tokens, including the end token."
    )


def _model(config: Mapping[str, Any], options: ModelOptions, words: int, parameters: int) -> str:
    encoder, transform = config["encoder"], config["transform"]
    weights, stage = encoder.get("encoder_weights"), encoder.get("fine_tune_encoder")
    training = "frozen" if stage is None else f"fine-tuned from stage {plain(stage)} onwards"
    if weights is None and stage is None and encoder["encoder"] == "small_cnn":
        training = "trained from scratch"
    initial = f", initial weights {code(weights)}" if weights else ""
    attention = f", attention size {options.attention_size}" if options.attention else ""
    size = plain(transform["size"])
    rows = {
        "Encoder": f"{code(encoder['encoder'])}, {training}{initial}",
        "Decoder": f"LSTM, hidden size {options.hidden_size}, embedding size "
        f"{options.embedding_size}{attention}",
        "Objective": _objective(config),
        "Vocabulary": f"{words:,} words",
        "Parameters": f"{parameters:,}{_trained(config)}",
        "Input": f"RGB, resized to {size} x {size} pixels regardless of the aspect ratio, "
        f"normalised with mean {_numbers(transform['mean'])} and standard deviation "
        f"{_numbers(transform['std'])}",
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {cell(v)} |" for k, v in rows.items())])


def _trained(config: Mapping[str, Any]) -> str:
    counts = config.get("parameters") or {}
    return f", of which {counts['trained']:,} were trained" if "trained" in counts else ""


def _objective(config: Mapping[str, Any]) -> str:
    if config["training"].get("self_critical"):
        return "self-critical training (CIDEr-D), started from a model trained with cross-entropy"
    teachers = len(config.get("teachers") or ())
    distilled = f", distilled from {teachers} model{'s' * (teachers > 1)}" if teachers else ""
    return f"cross-entropy{distilled}"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(map(plain, values))})"


def _data(config: Mapping[str, Any]) -> str:
    data = config["data"]
    times = "once" if data["min_count"] == 1 else f"{plain(data['min_count'])} times"
    vocabulary = f"contains the words that occur at least {times} in the training captions"
    if config.get("start_from"):
        vocabulary = "is that of the model from whose weights training started"
    return (
        f"The model was trained on {code(data['name'])} (layout {code(data['format'])}). "
        f"Its vocabulary {vocabulary}. "
        f"The fingerprint of image ids, splits and captions is {code(data['fingerprint'])}.\n\n"
        "The licence of the training data may also restrict the use of the model."
    )


def _scores(config: Mapping[str, Any]) -> str:
    scores = config.get("scores", {})
    names = [name for name in SCORES if name in scores]
    if not names:
        return "No scores are stored with this model."
    training = config["training"]
    watched = next((name for name in SCORES if name.lower() == training["watch"]), "score")
    lines = [
        "Scores on the validation split, decoded with beam size "
        f"{plain(training['beam_size'])}. The same split was used to select the epoch with the "
        f"best {watched}, so expect slightly lower scores on other images.",
        "",
        f"| {' | '.join(names)} |",
        "| " + " | ".join("---" for _ in names) + " |",
        f"| {' | '.join(f'{scores[name]:.1f}' for name in names)} |",
        "",
        f"Signature of the scores: {code(config['signature'])}"
        if "signature" in config
        else "The signature of the scores was not recorded.",
    ]
    return "\n".join(lines)


def _limitations(options: ModelOptions, size: str, words: int) -> str:
    lines = [
        f"The vocabulary has {words:,} words. The model describes every image with these words, "
        "even if the image shows something else, and with the same confidence. Expect wrong "
        "captions for images that differ from the training data.",
        "Captions of people reproduce the biases and stereotypes of the training captions. Do not "
        "use the model where a wrong caption could cause harm.",
        f"Images are resized to {size} x {size} pixels. Small objects may be lost, and text in the "
        "image is not read.",
    ]
    if options.attention:
        lines.append(
            "Attention maps show where the model looked. They do not explain why it chose a word."
        )
    return "\n".join(f"- {line}" for line in lines)
