"""The captioning models by name: which there are, what they promise, how one is made.

Both models have the same three methods:

    loss(batch) -> Loss                               teacher-forced, for training
    start(features, reads) -> (memory, state)         features (B, D, h, w)
    step(tokens, state, memory) -> (scores, state, attention)

`reads` says about how many words will be drawn from each picture, over all its hypotheses.
`memory` holds what no word changes: what the picture alone decides, rows (B, ...), and under
"word_gates" what the words alone do, rows (V, ...), where more will be drawn than there are.
`state` is a dict of tensors with rows (R, ...), reordered by index_select, one row per picture at
the start.
`step` takes the previous words (R,), the K rows of one picture side by side, and returns raw
scores (R, V) and the attention (R, h, w), or None for a model without; `attends` tells which.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .batches import Pictures
from .encoders import Encoder
from .errors import InputError
from .models.model_options import ModelOptions
from .models.show_and_tell import ShowAndTell
from .models.show_attend_and_tell import ShowAttendAndTell
from .search.hypotheses import Memory, State

CaptioningModel = ShowAndTell | ShowAttendAndTell
SAMPLE = 1000


def build_model(encoder: Encoder, vocabulary_size: int, options: ModelOptions) -> CaptioningModel:
    """The model that the options ask for, around an encoder."""
    if vocabulary_size <= 4:
        raise InputError("the vocabulary is empty; lower --min-count or give more captions")
    return (ShowAttendAndTell if options.attention else ShowAndTell)(
        encoder, vocabulary_size, options
    )


def standardize_maps(model: CaptioningModel, pictures: Pictures, count: int) -> None:
    """Let a new Show and Tell standardise maps by those of up to SAMPLE of its training pictures.

    count: how many these are. Nothing is done for an encoder that is learned from scratch, whose
    maps are not yet what they will be, nor for attention, which overfits the sooner for it.
    """
    if not isinstance(model, ShowAndTell) or not (model.encoder.frozen or model.encoder.pretrained):
        return
    device, chosen = model.words.bias.device, range(0, count, -(-count // SAMPLE))

    def maps() -> Iterator[Tensor]:
        for first in range(0, len(chosen), 64):
            values = pictures.load(chosen[first : first + 64]).to(device)
            yield values if pictures.are_features else model.encoder(values)

    with torch.no_grad():
        model.standardize.measure(maps())


def compile_steps(model: CaptioningModel) -> CaptioningModel:
    """Let torch.compile fuse the small operations of `step`, on CUDA into one graph; returns it.

    The first captions of each shape then take some seconds more. Needs a C++ compiler on a CPU.
    """
    step: Any = torch.compile(model.step)
    if model.words.bias.is_cuda:
        graph: Any = torch.compile(model.step, mode="reduce-overhead")

        def step(tokens: Tensor, state: State, memory: Memory) -> Any:
            """The next run of the graph writes to the same places."""
            scores, state, attention = graph(tokens, state, memory)
            state = {key: value.clone() for key, value in state.items()}
            return scores.clone(), state, None if attention is None else attention.clone()

    model.step = step  # type: ignore[method-assign]
    return model
