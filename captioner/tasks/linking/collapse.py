"""A warning about hinge losses that have collapsed: all pairs have the same score.

If hard negatives dominate a hinge loss, a model can often reduce the loss fastest by giving all
pairs the same score, such as by equal embeddings; the loss then stays at its value for equal
scores.
"""

from ... import distributed
from ...models.linking.contrastive import RELATIVE
from ...models.losses import Loss

TOLERANCE = 0.005  # of the loss relative to its value for equal scores
STEPS = 200  # in a row


class CollapseWatch:
    """Prints one warning after STEPS consecutive steps with the loss of equal scores.

    The count of steps is not saved; it restarts at 0 when a run is resumed.
    """

    def __init__(self, advice: str) -> None:
        """Start counting at 0. advice: what to do about a collapse; it ends the warning."""
        self.advice = advice
        self.steps = 0
        self.warned = False

    def observe(self, loss: Loss) -> None:
        """Process the loss of a step; losses without the part RELATIVE are ignored."""
        relative = loss.parts.get(RELATIVE)
        if relative is None or self.warned:
            return
        self.steps = self.steps + 1 if abs(float(relative) - 1) <= TOLERANCE else 0
        if self.steps == STEPS:
            self.warned = True
            distributed.say(
                f"warning: the loss has collapsed: for {STEPS} steps it was within "
                f"{100 * TOLERANCE:g} % of {float(loss.value / relative):.4g}, its value if "
                f"all pairs have the same score; {self.advice}"
            )
