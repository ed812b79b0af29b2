"""Build a captioning model from its options, and compile its steps."""

from typing import Any

import torch
from torch import Tensor, nn

from ...decoding.hypothesis import Memory, State
from ...errors import InputError
from ...products import compiled_products
from ...vision.encoders import Encoder
from ..base import CaptionModel
from .options import ModelOptions
from .show_and_tell import ShowAndTell
from .show_attend_and_tell import ShowAttendAndTell

CaptioningModel = ShowAndTell | ShowAttendAndTell
# torch's errors for a missing or broken compiler, by name because their module is private
TOOL_ERRORS = ("InvalidCxxCompiler", "CppCompileError", "TritonMissing", "GPUTooOldForTriton")


def build_model(encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> CaptioningModel:
    """Build the model that the options describe, with `encoder` as its image encoder.

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
    first batch of each shape takes a few seconds longer. torch.compile requires a C++ compiler on a
    CPU and Triton on a GPU; if the required tool is missing or does not support the GPU, the first
    step raises InputError.
    """

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = model
        self.encoder = model.encoder
        self.has_attention = model.has_attention
        self._device = next(model.parameters()).device
        self._graphs = self._device.type == "cuda"
        mode = "reduce-overhead" if self._graphs else None
        self._step: Any = torch.compile(model.step, mode=mode)

    def start(self, features: Tensor, expected_steps: int) -> tuple[Memory, State]:
        return self.model.start(features, expected_steps)

    def step(
        self, tokens: Tensor, state: State, memory: Memory
    ) -> tuple[Tensor, State, Tensor | None]:
        try:
            with compiled_products(self._device):
                scores, state, attention = self._step(tokens, state, memory)
        except RuntimeError as error:
            if reason := _missing_tool(error):
                raise InputError(
                    f"compiling the model failed: {reason}; install a C++ compiler and, for a GPU, "
                    "Triton, or omit --compile"
                ) from error
            raise
        if not self._graphs:
            return scores, state, attention
        # Clone the outputs: a CUDA graph writes them to the same memory on every run.
        state = {name: rows.clone() for name, rows in state.items()}
        return scores.clone(), state, None if attention is None else attention.clone()

    def state_dict(self, *args: Any, **options: Any) -> Any:
        return self.model.state_dict(*args, **options)


def _missing_tool(error: RuntimeError) -> str | None:
    """Return why torch.compile could not run its compiler, or None for any other error."""
    cause = getattr(error, "inner_exception", error)
    if type(cause).__name__ not in TOOL_ERRORS:
        return None
    lines = str(cause).splitlines()
    return next((line.strip() for line in lines if "error:" in line), lines[0])
