"""Several models that write one caption between them, by averaging what each makes of every word.

No search and no files. Shapes: B images, S image side, D feature channels, h, w grid,
R rows, V vocabulary.
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
    """Pixels (B, 3, S, S) -> the feature maps of all, side by side: (B, sum of D, h, w)."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([encoder(images) for encoder in self], dim=1)

    @property
    def offset(self) -> float:
        """The mean of theirs, which for encoders of one kind is the one that all have."""
        return sum(cast(Encoder, encoder).offset for encoder in self) / len(self)


class Ensemble(nn.Module):
    """Models with one vocabulary and one grid, which search sees as a single one.

    What it says of a word is the mean of its members' log-probabilities, and where it looks the
    mean of the maps of those that attend. An encoder that several members share runs once. There
    is no loss: members are trained each by itself.
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
        """Those of each member, its number before every name."""
        maps = features.split(self._channels, dim=1)
        memory: Memory = {}
        state: State = {}
        for number, member in enumerate(self.members):
            own_memory, own_state = member.start(maps[self._encoder_of[number]], expected_steps)
            memory |= _numbered(number, own_memory)
            state |= _numbered(number, own_state)
        return memory, state

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        """Averages raw scores (R, V).

        Each member's differ from its log-probabilities by one number per row, and search takes the
        log-softmax of what comes: the mean of the log-probabilities would give it the same.
        """
        scores: list[Tensor] = []
        maps: list[Tensor] = []
        after: State = {}
        for number, member in enumerate(self.members):
            own = member.step(tokens, _of(number, state), _of(number, memory))
            scores.append(own[0].float())
            after |= _numbered(number, own[1])
            if own[2] is not None:
                maps.append(own[2])
        attention = torch.stack(maps).mean(0) if maps else None
        return torch.stack(scores).mean(0), after, attention


def _numbered(number: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{number}.{name}": tensor for name, tensor in tensors.items()}


def _of(number: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{number}."
    return {k.removeprefix(start): tensor for k, tensor in tensors.items() if k.startswith(start)}


@dataclass(frozen=True)
class Candidate:
    """A model that may join an ensemble: what it is called in errors, and what must agree."""

    name: str
    model: CaptioningModel
    transform: Transform
    vocabulary: Vocabulary


def build_ensemble(candidates: Sequence[Candidate]) -> CaptioningModel | Ensemble:
    """One model that captions with all of the candidates; a single candidate is returned itself.

    Leaves the models in eval mode, those with equal encoders with one encoder between them. Raises
    InputError, naming two candidates and what differs, unless all see the same pixels on the same
    grid and know the same words.
    """
    models = [candidate.model.eval() for candidate in candidates]
    if len(models) == 1:
        return models[0]
    first, *others = (_common(each) for each in candidates)
    for candidate, other in zip(candidates[1:], others, strict=True):
        for name in first | other:
            if first.get(name) != other.get(name):
                raise InputError(
                    f"{candidates[0].name} and {candidate.name} cannot caption together: {name} "
                    f"is {first.get(name)!r} for the one and {other.get(name)!r} for the other"
                )
    share_encoders(models)
    return Ensemble(models)


def compile_steps(model: CaptionModel) -> CompiledSteps | Ensemble:
    """The model, or each member of the ensemble, with compiled steps; see CompiledSteps."""
    if isinstance(model, Ensemble):
        return Ensemble([compile_steps(member) for member in model.members])
    return CompiledSteps(model)


def share_encoders(models: Sequence[CaptioningModel]) -> None:
    """Give models whose encoders have equal weights one encoder, so that it runs once for all."""
    encoders: dict[str, Encoder] = {}
    for model in models:
        model.encoder = encoders.setdefault(model.encoder.fingerprint(), model.encoder)


def _common(candidate: Candidate) -> dict[str, object]:
    """All that must be the same for every member of an ensemble, by name."""
    size = candidate.transform.size
    with torch.no_grad():
        grid = tuple(candidate.model.encoder(torch.zeros(1, 3, size, size)).shape[2:])
    words = {f"word {number}": w for number, w in enumerate(candidate.vocabulary.words, start=1)}
    return {**asdict(candidate.transform), "grid": grid, **words}
