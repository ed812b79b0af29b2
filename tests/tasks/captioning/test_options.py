"""The options of captioning other than its model options."""

import pytest

from captioner.errors import InputError
from captioner.tasks.captioning.options import CaptioningOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"min_count": 0}, "min_count must be at least 1, got 0"),
        ({"scheduled_sampling": 1.0}, "scheduled_sampling must be at least 0 and below 1, got 1.0"),
        ({"cross_entropy_share": 1.0}, "cross_entropy_share must be at least 0 and below 1, got"),
    ],
)
def test_invalid_options(options, message):
    with pytest.raises(InputError, match=message):
        CaptioningOptions(**options)
