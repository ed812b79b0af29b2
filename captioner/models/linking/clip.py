"""CLIP and SigLIP models of the open_clip library as linking models.

open_clip is an extra, imported inside functions; it builds the networks and loads their weights.
Shapes: B images, N texts, T tokens, E dimensions, (h, w) grid, P patches.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data.images import INTERPOLATIONS, Transform
from ...errors import InputError
from ...options import did_you_mean
from ...text.tokenizer import plain_words
from ...vision.encoders import Encoder
from ...vision.receptive_field import ReceptiveField
from ...vision.timm_backbones import move_state
from .options import CLIP, OPEN_CLIP
from .texts import READER, TextReader, Texts

TEXTS_AT_ONCE = 64


class ClipImages(nn.Module):
    """An image tower: (B, 3, S, S) -> (B, 2E, h, w).

    The first E channels are the embedding of the whole image, the same in every cell; the other E
    are the embedding of the cell's patch in the space of the texts. Neither is scaled to norm 1. A
    single stored map thus contains both. The embedding of a patch is the output of the tower's last
    layers for its token alone. Raises InputError for a tower without patch tokens that can be used.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        self.is_timm = hasattr(visual, "trunk")
        if not self.is_timm:
            if getattr(visual, "attn_pool", None) is not None or not hasattr(visual, "ln_post"):
                raise InputError(
                    f"the image tower {type(visual).__name__} has no patch tokens that captioner "
                    "can use; choose another model, such as ViT-B-32 or ViT-B-16-SigLIP"
                )
            visual.output_tokens = True

    def forward(self, images: Tensor) -> Tensor:
        if self.is_timm:
            whole, patches = self._embed_timm(images)
        else:
            whole, tokens = self.visual(images)
            if self.visual.final_ln_after_pool:
                tokens = self.visual.ln_post(tokens)
            patches = tokens if self.visual.proj is None else tokens @ self.visual.proj
        batch, count, size = patches.shape
        side = math.isqrt(count)
        grid = patches.transpose(1, 2).reshape(batch, size, side, count // side)
        return torch.cat([whole[:, :, None, None].expand_as(grid), grid], dim=1)

    def _embed_timm(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings (B, E) and patches (B, P, E) of a tower built by timm."""
        trunk, head = self.visual.trunk, self.visual.head
        tokens = trunk.forward_features(images)
        if tokens.ndim == 4:  # a CNN, (B, D, h, w)
            maps = tokens.flatten(2).transpose(1, 2)
            alone = maps.flatten(0, 1)[:, :, None, None]
            prefix = 0
        else:
            prefix = int(getattr(trunk, "num_prefix_tokens", 0))
            maps = tokens[:, prefix:]
            alone = maps.flatten(0, 1)[:, None]  # each patch is the only token that is pooled
            if prefix:
                alone = alone.expand(-1, prefix + 1, -1)
        patches = head(trunk.forward_head(alone)).unflatten(0, maps.shape[:2])
        return head(trunk.forward_head(tokens)), patches


class ClipEmbedding(nn.Module):
    """Embeds images and texts in the space of a CLIP or SigLIP model.

    The score of an image and a text is the cosine of their embeddings. dimensions: E.
    """

    features = "pooled"  # kind of stored features that images are encoded from

    def __init__(self, name: str, model: Any) -> None:
        """Split an open_clip model into its towers. name: its name in open_clip."""
        super().__init__()
        images = ClipImages(model.visual)
        size = model.visual.image_size
        side = size[0] if isinstance(size, tuple | list) else size
        model.eval()
        with torch.no_grad():
            channels, cells = images(torch.zeros(1, 3, side, side)).shape[1:3]
        field = ReceptiveField([0], channels, round(side / cells), 0.0)
        self.encoder = Encoder(OPEN_CLIP + name, nn.Sequential(images), field=field)
        self.dimensions = channels // 2
        model.visual = nn.Identity()  # its weights are those of the encoder
        self.text = model.requires_grad_(False)
        self.context = int(getattr(model, "context_length", 77))

    def encode_images(self, features: Tensor) -> Tensor:
        """Return unit rows (B, E) of stored or computed features.

        features: maps (B, 2E, h, w), or their means and maxima (B, 2, 2E).
        """
        rows = features.float()
        rows = rows.mean((2, 3)) if rows.ndim == 4 else rows[:, 0]
        return F.normalize(rows[:, : self.dimensions], dim=1)

    def encode_texts(self, texts: Texts) -> Tensor:
        """Return unit rows (N, E) of tokens."""
        assert texts.tokens is not None
        tokens = F.pad(texts.tokens, (0, self.context - texts.tokens.shape[1]))
        rows = [
            self.text.encode_text(tokens[first : first + TEXTS_AT_ONCE])
            for first in range(0, len(tokens), TEXTS_AT_ONCE)
        ]
        joined = torch.cat(rows) if rows else tokens.new_zeros((0, self.dimensions)).float()
        return F.normalize(joined.float(), dim=1)

    def patch_similarities(self, features: Tensor, vectors: Tensor) -> Tensor:
        """Return the cosines (B, N, h, w) of the patches with texts, in [-1, 1].

        features: maps (B, 2E, h, w). vectors (N, E): unit rows of the texts. CLIP was not trained
        to locate words, so these are a rough guide.
        """
        patches = F.normalize(features[:, self.dimensions :].float(), dim=1)
        return torch.einsum("behw,ne->bnhw", patches, vectors)


@dataclass(frozen=True)
class ClipReader(TextReader):
    """Prepares texts with the tokenizer of an open_clip model, which knows all words.

    name: the model's name in open_clip. tokenize: maps texts to tokens (N, T).
    """

    name: str = ""
    tokenize: Any = None

    @property
    def can_read(self) -> bool:
        """Whether new texts can be encoded."""
        return True

    def read(self, texts: Sequence[str]) -> Texts:
        """Return the tokens of the texts."""
        return Texts(self.read_tokens(texts))

    def read_tokens(self, texts: Sequence[str]) -> Tensor:
        """Return tokens (N, T), as long as the model's context."""
        return torch.as_tensor(self.tokenize(list(texts) or [""]))[: len(texts)]

    def unknown_words(self, text: str) -> list[str]:  # noqa: ARG002
        """Return an empty list, because the tokenizer splits every word into known subwords."""
        return []

    def knows(self, text: str) -> bool:
        """Return whether a text contains a word."""
        return bool(plain_words(text))

    def save(self, directory: Path) -> None:
        """Write the model's name, which determines the tokenizer."""
        content = json.dumps({"open_clip": self.name})
        (directory / READER).write_text(content + "\n", encoding="utf-8")


def build_clip(name: str, weights: str | Path | None = None) -> ClipEmbedding:
    """Build the open_clip model `name`. weights: a file; None for random weights.

    With the default device "meta", the parameters are on it. Raises InputError if open_clip is not
    installed, for an unknown model, one without patch tokens and one that cannot be built, and for
    weights that are missing or that open_clip cannot load.
    """
    open_clip = _import_open_clip(name)
    path = None if weights is None else Path(weights)
    if path is not None and not path.is_file():
        problem = "are not a file" if path.exists() else "do not exist"
        raise InputError(f"weights {path} {problem}; pass a file of weights of {name}")
    to_meta = torch.get_default_device().type == "meta"
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        try:
            model = open_clip.create_model(
                name, pretrained=path and str(path), pretrained_text=False, device="cpu"
            )
        except Exception as error:  # open_clip and torch raise various errors
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{OPEN_CLIP}{name} cannot be built: {reason}; choose another model"
                if path is None
                else f"{OPEN_CLIP}{name} cannot be built with the weights {path}: {reason}; check "
                f"that they are weights of {name}"
            ) from error
        built = ClipEmbedding(name, model)
    if to_meta:
        move_state(built)
    return built


def clip_transform(name: str) -> Transform:
    """Return the transform of an open_clip model, which squashes the whole image to a square.

    The size is that of the model's config; mean, std and interpolation are those of the first of
    its published weights, or those of OpenAI's CLIP if there are none. Raises InputError if
    open_clip is not installed, and for an unknown model.
    """
    open_clip = _import_open_clip(name)
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
    tags = list_pretrained_tags_by_model(name)
    config = get_pretrained_cfg(name, tags[0]) if tags else {}
    method = config.get("interpolation", "bicubic")
    return Transform(
        size[0] if isinstance(size, tuple | list) else size,
        tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
        method if method in INTERPOLATIONS else "bicubic",
    )


def clip_config(name: str, transform: Transform) -> dict[str, Any]:
    """Return the config of a checkpoint of the open_clip model `name`."""
    return {
        "task": CLIP,
        "encoder": {
            "encoder": f"{OPEN_CLIP}{name}",
            "encoder_weights": None,
            "fine_tune_encoder": None,
        },
        "model": {"open_clip": name},
        "transform": transform.to_dict(),
        "data": {"name": "unknown", "format": None, "path": None, "fingerprint": None},
        "training": {},
    }


def load_clip_reader(name: str) -> ClipReader:
    """Return the reader of an open_clip model; open_clip downloads the tokenizers of some models.

    Raises InputError if open_clip is not installed, for an unknown model, and for a tokenizer that
    cannot be loaded.
    """
    open_clip = _import_open_clip(name)
    try:
        return ClipReader(name=name, tokenize=open_clip.get_tokenizer(name))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        advice = "check the connection; open_clip downloads the tokenizers of some models"
        if isinstance(error, ImportError):
            advice = "install the missing package"
        raise InputError(
            f"the tokenizer of {OPEN_CLIP}{name} cannot be loaded: {reason}; {advice}"
        ) from error


def _import_open_clip(name: str) -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise InputError(
            f"{OPEN_CLIP}{name} needs {error.name}; run pip install 'captioner[clip]'"
        ) from error
    if name not in open_clip.list_models():
        raise InputError(
            f"unknown model {OPEN_CLIP}{name}"
            f"{did_you_mean(name, open_clip.list_models()) or '; see open_clip.list_models()'}"
        )
    module: ModuleType = open_clip
    return module
