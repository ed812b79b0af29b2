"""Scores on request that need more than captions and references: CLIPScore and SPICE."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.dataset import Example
from ..errors import InputError
from ..linker import Linker
from ..metrics.clip_score import PROMPT, clip_score, ref_clip_score
from ..metrics.spice import spice
from ..models.linking.clip import ClipEmbedding


def load_clip(path: Path, device: str | None) -> Linker:
    """Load a saved CLIP or SigLIP model; raise InputError for any other, or if loading fails."""
    linker = Linker.from_pretrained(path, device)
    if not isinstance(linker.model, ClipEmbedding):
        raise InputError(
            f"CLIPScore needs a CLIP or SigLIP model, but {path} is another linking model; pass "
            "--clip with a directory that Linker.save_pretrained wrote"
        )
    return linker


def clip_scores(
    linker: Linker, examples: Sequence[Example], captions: Mapping[int | str, str]
) -> dict[str, float]:
    """Return the mean CLIPScore (0-250) and RefCLIPScore (0-143) of captions, by name.

    captions: by the ids of the examples; an empty caption scores 0. Raises InputError for an image
    that cannot be read.
    """
    images = linker.encode_images([example.path for example in examples])
    texts = [captions[example.id] for example in examples]
    rows = _embed(linker, texts)
    owners = np.repeat(np.arange(len(examples)), [len(example.captions) for example in examples])
    references = _embed(linker, [text for example in examples for text in example.captions])
    scores = clip_score(images, rows)
    against = ref_clip_score(scores, rows, references, owners)
    return {"CLIPScore": float(scores.mean()), "RefCLIPScore": float(against.mean())}


def spice_score(examples: Sequence[Example], captions: Mapping[int | str, str]) -> dict[str, float]:
    """Return the mean SPICE of captions, 0-100, by name; errors are as in `spice`."""
    values = spice(
        [captions[example.id] for example in examples], [example.captions for example in examples]
    )
    return {"SPICE": float(np.mean(values))}


def _embed(linker: Linker, texts: Sequence[str]) -> np.ndarray:
    rows = linker.encode_texts([PROMPT + text for text in texts])
    rows[[not text.strip() for text in texts]] = 0
    return rows
