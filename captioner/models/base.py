"""The contract of a captioning model.

A captioning model is a torch module with the attributes and methods below. Training calls `loss`;
search and sampling call `start` once per batch of images and `step` once per token, and use
nothing else. Shapes: B images, K hypotheses per image, R = B*K rows, S image side, D feature
channels, h, w grid, V vocabulary.

encoder
    Module (B, 3, S, S) -> feature maps (B, D, h, w). It is not run by `loss` if the batch holds
    feature maps already, and never by `start` and `step`.

has_attention
    Whether `step` returns attention maps.

loss(batch) -> losses.Loss
    Teacher-forced loss of a batch of images with all their captions. An ensemble has no loss.

calibrate(maps)
    Takes feature maps of a sample of the training images, as an iterable of (B, D, h, w), before
    training starts, for statistics that are not trained by gradients.

start(features, expected_steps) -> (memory, state)
    features (B, D, h, w). expected_steps: estimate of the tokens that will be generated per image,
    summed over its hypotheses. It decides only what is worth precomputing and never changes the
    results; 0 precomputes nothing.
    memory: dict of tensors that `step` reads and never changes: rows (B, ...) that depend on the
    image, and under "word_gates" rows (V, ...) that depend on the word only, precomputed if
    expected_steps * B exceeds V.
    state: dict of tensors with one row per image. The caller repeats the rows for the hypotheses
    of an image and reorders them by index_select as hypotheses are chosen.

step(tokens, state, memory) -> (scores, state, attention)
    tokens (R,): the previous token of each hypothesis, the start token at first. All hypotheses of
    an image are adjacent, K for every image; K may change between steps.
    scores (R, V): raw scores of the next token, whose log-softmax is its log-probability. The
    caller may change them in place.
    attention (R, h, w): the weights of the positions of the map, of sum 1, or None.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from ..decoding.hypothesis import ImageGenerator


class CaptionModel(ImageGenerator, Protocol):
    """A trained captioning model: a single one, one with compiled steps, or an ensemble."""

    has_attention: bool

    def eval(self) -> Any: ...

    def to(self, device: Any) -> Any: ...

    def modules(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...
