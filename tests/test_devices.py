"""Which device and which number format are picked, and which are refused."""

from pathlib import Path

import pytest
import torch

from captioner.devices import device_of, peak_memory, pick_device, pick_precision, products_in
from captioner.errors import InputError

CPU = torch.device("cpu")


def test_device():
    assert pick_device("cpu") == torch.device("cpu")
    there = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device(None).type == there
    for wrong in ("abacus", "meta", "mps:0"):
        with pytest.raises(InputError, match=f"device must be cpu, cuda or cuda:N, got '{wrong}'"):
            pick_device(wrong)
    for wrong in ("cuda:99", "cpu:x"):
        with pytest.raises(InputError, match=f"device '{wrong}' cannot be used: .") as caught:
            pick_device(wrong)
        assert "\n" not in str(caught.value)


def test_device_of_a_model():
    assert device_of(torch.nn.Linear(2, 2)) == CPU
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")


def test_precision(monkeypatch):
    assert pick_precision("float32", CPU) is torch.float32
    assert pick_precision("bfloat16", CPU) is torch.bfloat16
    for able in ({"amx_bf16": True}, {"avx512_bf16": True}, {"amx_bf16": False}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        fast = any(able.values())
        assert pick_precision("auto", CPU) is (torch.bfloat16 if fast else torch.float32)
    with pytest.raises(InputError, match=r"precision must be one of .*, got 'half'"):
        pick_precision("half", CPU)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_products_are_in_the_precision_and_sums_are_not(name):
    values = torch.ones(2, 2)
    with products_in(name, CPU):
        assert (values @ values).dtype is getattr(torch, name)
        assert values.log_softmax(-1).dtype is torch.float32


def test_peak_memory_is_what_the_system_counted():
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("no /proc to compare with")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = peak_memory(CPU)
    assert peak.keys() == {"memory_mb"}
    assert peak["memory_mb"] == pytest.approx(int(line.split()[1]) * 1024 / 1e6, rel=0.05)
