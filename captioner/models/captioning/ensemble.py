"""Ensembles: models that caption together by averaging their predictions.

Shapes: B images, S image side, D feature channels, (h, w) grid, R rows, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ...data.images import Transform
from ...decoding.hypothesis import Memory, State
from ...errors import InputError
from ...text.vocabulary import Vocabulary
from ...vision.encoders import Encoder
from ..base import CaptionModel
from .build import CaptioningModel, CompiledSteps


class Encoders(nn.ModuleList):
    """Encoders whose feature maps are concatenated: (B, 3, S, S) -> (B, sum of D, h, w)."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([encoder(images) for encoder in self], dim=1)

    @property
    def offset(self) -> float:
        """Mean offset of the encoders; equal encoders have equal offsets."""
        return sum(cast(Encoder, encoder).offset for encoder in self) / len(self)


class Ensemble(nn.Module):
    """Models with the same vocabulary and grid, which decode as a single model.

    Word log-probabilities are averaged over the members, and attention maps over the members with
    attention. An encoder that several members share runs once. An ensemble has no loss: its
    members are trained separately.
    """

    members: Sequence[CaptionModel]

    def __init__(self, members: Sequence[CaptionModel]) -> None:
        super().__init__()
        distinct = list(dict.fromkeys(member.encoder for member in members))
        self.encoder = Encoders(distinct)
        self.members = nn.ModuleList(members)  # type: ignore[assignment, arg-type]
        self.has_attention = any(member.has_attention for member in members)
        self._channels = [encoder.channels for encoder in distinct]
        self._encoder_of = [distinct.index(member.encoder) for member in members]

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        """Return all members' memory and state, with names prefixed by the member's number."""
        maps = torch.split(features, self._channels, dim=1)
        memory: Memory = {}
        state: State = {}
        for number, member in enumerate(self.members):
            features = maps[self._encoder_of[number]]
            member_memory, member_state = member.start(features, expected_steps)
            memory |= _add_prefix(number, member_memory)
            state |= _add_prefix(number, member_state)
        return memory, state

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        """Average the members' raw scores (R, V) and attention maps (R, h, w).

        Raw scores differ from log-probabilities by a constant per row, which the log-softmax of
        decoding removes, so averaging either yields the same result.
        """
        scores: list[Tensor] = []
        maps: list[Tensor] = []
        new_state: State = {}
        for number, member in enumerate(self.members):
            member_scores, member_state, attention = member.step(
                tokens, _remove_prefix(number, state), _remove_prefix(number, memory)
            )
            scores.append(member_scores.float())
            new_state |= _add_prefix(number, member_state)
            if attention is not None:
                maps.append(attention)
        mean_attention = torch.stack(maps).mean(0) if maps else None
        return torch.stack(scores).mean(0), new_state, mean_attention


def _add_prefix(number: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{number}.{name}": tensor for name, tensor in tensors.items()}


def _remove_prefix(number: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return one member's tensors, with the prefix removed from their names."""
    prefix = f"{number}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


@dataclass(frozen=True)
class Candidate:
    """A candidate member of an ensemble; `name` identifies it in error messages."""

    name: str
    model: CaptioningModel
    transform: Transform
    vocabulary: Vocabulary


def build_ensemble(candidates: Sequence[Candidate]) -> CaptioningModel | Ensemble:
    """Build an ensemble of the candidates, or return the model of a single candidate.

    Sets the models to eval mode and makes models with equal encoders share one. Raises InputError
    unless all candidates have the same transform, grid and vocabulary; the message names two
    candidates and their difference.
    """
    models = [candidate.model.eval() for candidate in candidates]
    if len(models) == 1:
        return models[0]
    first, *others = (_requirements(candidate) for candidate in candidates)
    for candidate, other in zip(candidates[1:], others, strict=True):
        for name in first | other:
            if first.get(name) != other.get(name):
                raise InputError(
                    f"{candidates[0].name} and {candidate.name} cannot form an ensemble: {name} "
                    f"is {first.get(name)!r} in the first and {other.get(name)!r} in the second; "
                    "choose models with the same vocabulary, transform and grid"
                )
    share_encoders(models)
    return Ensemble(models)


def compile_steps(model: CaptionModel) -> CompiledSteps | Ensemble:
    """Compile the steps of a model, or of each member of an ensemble; see CompiledSteps."""
    if isinstance(model, Ensemble):
        return Ensemble([compile_steps(member) for member in model.members])
    return CompiledSteps(model)


def share_encoders(models: Sequence[CaptioningModel]) -> None:
    """Make models whose encoders have equal weights share one encoder, which then runs once."""
    encoders: dict[str, Encoder] = {}
    for model in models:
        model.encoder = encoders.setdefault(model.encoder.fingerprint(), model.encoder)


def _requirements(candidate: Candidate) -> dict[str, object]:
    """Return everything that must be equal for all members of an ensemble, by name."""
    size = candidate.transform.size
    with torch.no_grad():
        grid = tuple(candidate.model.encoder(torch.zeros(1, 3, size, size)).shape[2:])
    words = {f"word {number}": w for number, w in enumerate(candidate.vocabulary.words, start=1)}
    name = candidate.vocabulary.tokenizer.name
    return {**asdict(candidate.transform), "grid": grid, "tokenizer": name, **words}
