"""A warning about hinge losses that have collapsed: all pairs have the same score.

A hinge loss that is dominated by hard negatives is often smallest, within reach of one step, if all
images and all texts have the same embedding; it then stays at its value for equal scores.
"""

from tqdm import tqdm

from ... import distributed
from ...models.linking.contrastive import RELATIVE
from ...models.losses import Loss

TOLERANCE = 0.005  # of the loss relative to its value for equal scores
STEPS = 200  # in a row


class CollapseWatch:
    """Counts steps whose loss is that of equal scores, and prints one warning after STEPS in a row.

    The count is not saved: after a run is resumed, it begins anew.
    """

    def __init__(self, advice: str) -> None:
        """advice: what to do about a collapse, as the end of a sentence."""
        self.advice = advice
        self.steps = 0
        self.warned = False

    def observe(self, loss: Loss) -> None:
        """Count a step; losses without the part RELATIVE cannot collapse."""
        relative = loss.parts.get(RELATIVE)
        if relative is None or self.warned:
            return
        self.steps = self.steps + 1 if abs(float(relative) - 1) <= TOLERANCE else 0
        if self.steps == STEPS:
            self.warned = True
            if distributed.is_first():
                tqdm.write(
                    f"warning: the loss has collapsed: for {STEPS} steps it was within "
                    f"{TOLERANCE:.1%} of {float(loss.value / relative):.4g}, its value if all "
                    f"pairs have the same score; {self.advice}"
                )
