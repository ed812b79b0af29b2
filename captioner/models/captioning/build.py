"""Build a captioning model from its options, and compile its steps."""

from typing import Any

import torch
from torch import Tensor, nn

from ...decoding.hypothesis import Memory, State
from ...errors import InputError
from ...vision.encoders import Encoder
from ..base import CaptionModel
from .options import ModelOptions
from .show_and_tell import ShowAndTell
from .show_attend_and_tell import ShowAttendAndTell

CaptioningModel = ShowAndTell | ShowAttendAndTell


def build_model(encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> CaptioningModel:
    """Build the model that the options describe, with the given encoder.

    vocabulary_size: number of tokens, including special tokens. Raises InputError if the vocabulary
    contains only the four special tokens.
    """
    if vocabulary_size <= 4:
        raise InputError("the vocabulary is empty; lower --min-count or provide more captions")
    model = ShowAttendAndTell if options.attention else ShowAndTell
    return model(encoder, vocabulary_size, options)


class CompiledSteps(nn.Module):
    """A model whose `step` is compiled with torch.compile, using CUDA graphs on CUDA devices.

    Everything else is delegated to the original model, including its weights and state dict. The
    first batch of each shape takes a few seconds longer. On a CPU, torch.compile requires a C++
    compiler.
    """

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model
        self.encoder = model.encoder
        self.has_attention = model.has_attention
        self._graphs = next(model.parameters()).is_cuda
        mode = "reduce-overhead" if self._graphs else None
        self._step: Any = torch.compile(model.step, mode=mode)

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        return self.model.start(features, expected_steps)

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        scores, state, attention = self._step(tokens, state, memory)
        if not self._graphs:
            return scores, state, attention
        # Clone the outputs: a CUDA graph writes them to the same memory on every run.
        state = {name: rows.clone() for name, rows in state.items()}
        return scores.clone(), state, None if attention is None else attention.clone()

    def state_dict(self, *args: Any, **options: Any) -> Any:
        return self.model.state_dict(*args, **options)
