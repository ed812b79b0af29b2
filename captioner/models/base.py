"""What every captioning model promises, whichever it is.

    loss(batch) -> Loss                               teacher-forced, for training
    start(features, reads) -> (memory, state)         features (B, D, h, w)
    step(tokens, state, memory) -> (scores, state, attention)

`reads` says about how many words will be drawn from each image, over all its hypotheses.
`memory` holds what no word changes: what the image alone decides, rows (B, ...), and under
"word_gates" what the words alone do, rows (V, ...), where more will be drawn than there are.
`state` is a dict of tensors with rows (R, ...), reordered by index_select, one row per image at
the start.
`step` takes the previous words (R,), the K rows of one image side by side, and returns raw
scores (R, V) and the attention (R, h, w), or None for a model without; `attends` tells which.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from ..decoding.hypothesis import ImageGenerator


class CaptionModel(ImageGenerator, Protocol):
    """A torch module that captions: a model, one with compiled steps, or an ensemble."""

    has_attention: bool

    def eval(self) -> Any: ...

    def to(self, device: Any) -> Any: ...

    def modules(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...
