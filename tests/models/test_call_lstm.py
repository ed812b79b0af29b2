"""LSTMs on CPUs that have none in bfloat16."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from captioner.models.layers import call_lstm


@pytest.fixture
def lstm():
    torch.manual_seed(0)
    return nn.LSTM(4, 5, batch_first=True)


@pytest.mark.parametrize("packed", [False, True])
def test_without_avx512_lstms_run_in_float32(lstm, packed, monkeypatch):
    able = {"architecture": "x86_64", "avx512_vl": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    steps = torch.rand(2, 3, 4).bfloat16()
    given = pack_sequence(list(steps)) if packed else steps
    with torch.autocast("cpu", torch.bfloat16):
        found, state = call_lstm(lstm, given)
    expected, (hidden, cell) = lstm(given.float())
    values = (found.data, expected.data) if packed else (found, expected)
    for one, other in (values, (state[0], hidden), (state[1], cell)):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_other_cpus_and_states_are_left_to_torch(lstm, monkeypatch):
    able = {"architecture": "x86_64", "avx512_vl": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    steps, state = torch.rand(2, 3, 4), (torch.rand(1, 2, 5), torch.rand(1, 2, 5))
    with pytest.raises(ValueError, match="dtype"):
        call_lstm(lstm, steps.double(), state)  # not converted
    assert torch.equal(call_lstm(lstm, steps, state)[0], lstm(steps, state)[0])
