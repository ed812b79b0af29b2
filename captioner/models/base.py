"""The interface of a captioning model.

A captioning model is a torch module with the attributes and methods below. Training calls `loss`;
search and sampling call only `start`, once per batch of images, and `step`, once per token.
Shapes: B images, K hypotheses per image, R = B*K rows, S image side, D feature channels, (h, w)
grid, V vocabulary.

encoder
    Module (B, 3, S, S) -> feature maps (B, D, h, w). `loss` skips it if the batch already contains
    feature maps; `start` and `step` never run it.

has_attention
    Whether `step` returns attention maps.

loss(batch) -> losses.Loss
    Teacher-forced loss of a batch of images with all their captions. An ensemble, which is never
    trained, has neither `loss` nor `calibrate`.

calibrate(maps)
    Computes statistics that are not learned by gradient descent; called before training. maps:
    iterable of feature maps (B, D, h, w) of a sample of the training images.

start(features, expected_steps) -> (memory, state)
    features (B, D, h, w). expected_steps: estimated number of tokens to generate per image, summed
    over its hypotheses. It affects only what is precomputed, never the results.
    memory: dict of tensors that `step` reads but never modifies: rows (B, ...) that depend on the
    image and, under "word_gates", rows (V, ...) that depend only on the word. The latter are
    precomputed once expected_steps * B, summed over the calls with the same weights unless
    gradients are computed, exceeds V.
    state: dict of tensors with one row per image. The caller repeats the rows for the hypotheses
    of an image and reorders them with index_select as hypotheses are chosen.

step(tokens, state, memory) -> (scores, state, attention)
    tokens (R,): previous token of each hypothesis; the start token at the first step. The K
    hypotheses of an image are adjacent; K is the same for every image but may change between steps.
    scores (R, V): raw scores of the next token; their log-softmax is its log-probability. The
    caller may modify them in place.
    attention (R, h, w): attention weights over the grid, which sum to 1 in each row, or None.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from ..decoding.hypothesis import ImageGenerator


class CaptionModel(ImageGenerator, Protocol):
    """A trained captioning model: a single model, one with compiled steps, or an ensemble."""

    has_attention: bool

    def eval(self) -> Any: ...

    def to(self, device: Any) -> Any: ...

    def modules(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...
