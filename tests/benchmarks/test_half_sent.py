"""The load of the service beside half-sent requests, with a model that takes no time."""

import time

from benchmarks.half_sent import half_sent, load
from benchmarks.serve import serving
from captioner.serving.schemas import Limits
from tests.support.service import Stub, png


def test_every_good_request_is_answered_beside_half_sent_ones():
    with serving(Stub(), Limits(queue=4)) as address, half_sent(address, 20) as sent:
        answers, health = load(address, [png(), png()], [-3.875, 0.0], 3)
    assert len(sent) == 20
    assert health
    assert 0 < sum(correct for _, correct in answers) < len(answers)  # one score is wrong


def test_half_sent_requests_that_are_refused_are_sent_anew():
    until = time.monotonic() + 10
    with serving(Stub(), Limits(timeout=0.5)) as address, half_sent(address, 3) as sent:
        while len(sent) < 6:
            assert time.monotonic() < until
