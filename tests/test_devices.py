"""Which devices and number formats are chosen and which are rejected."""

import math
import sys
from pathlib import Path

import pytest
import torch

from captioner.devices import device_of, peak_memory, pick_device, pick_precision, products_in
from captioner.errors import InputError

CPU, MPS = torch.device("cpu"), torch.device("mps")


def test_the_device_of_a_name():
    assert pick_device("cpu") == CPU
    available = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device(None).type == available


@pytest.mark.parametrize("name", ["abacus", "meta", "xpu:0"])
def test_other_kinds_of_devices_are_refused(name):
    message = f"device must be cpu, cuda, cuda:N or mps, got '{name}'"
    with pytest.raises(InputError, match=message):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "cpu:x"])
def test_devices_that_do_not_exist_are_refused_in_one_line(name):
    with pytest.raises(
        InputError, match=f"device '{name}' cannot be used: .*; choose another device"
    ) as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_an_apple_gpu_is_used_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="device 'mps' cannot be used: no Apple GPU is available"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == pick_device(MPS) == MPS
    assert pick_device("mps:0") == torch.device("mps:0")
    for wrong, reason in (("mps:1", "there is only one Apple GPU"), ("mps:x", "Invalid device")):
        with pytest.raises(InputError, match=f"device '{wrong}' cannot be used: {reason}"):
            pick_device(wrong)


def test_device_of_a_model():
    assert device_of(torch.nn.Linear(2, 2)) == CPU
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")


# ---- precision ----------------------------------------------------------------------------------


def test_precision(monkeypatch):
    assert pick_precision("float32", CPU) is torch.float32
    assert pick_precision("bfloat16", CPU) is torch.bfloat16
    for able in ({"amx_bf16": True}, {"avx512_bf16": True}, {"amx_bf16": False}, {}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        fast = any(able.values())
        assert pick_precision("auto", CPU) is (torch.bfloat16 if fast else torch.float32)
    with pytest.raises(InputError, match=r"precision must be one of .*, got 'half'"):
        pick_precision("half", CPU)


@pytest.mark.parametrize("macos", [13, 14])
def test_precision_on_an_apple_gpu(macos, monkeypatch):
    """float32 unless autocast supports bfloat16 there; "auto" never chooses it."""

    def is_macos_or_newer(major, minor):
        return (macos, 0) >= (major, minor)

    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", is_macos_or_newer)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    expected = torch.bfloat16 if macos >= 14 else torch.float32
    assert pick_precision("bfloat16", MPS) is expected
    assert pick_precision("auto", MPS) is pick_precision("float32", MPS) is torch.float32
    for name in ("bfloat16", "float32"):
        with products_in(name, MPS):
            assert torch.is_autocast_enabled("mps") == (pick_precision(name, MPS) != torch.float32)
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda _: False)
    assert pick_precision("bfloat16", MPS) is torch.float32


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_products_are_in_the_precision_and_sums_are_not(name):
    values = torch.ones(2, 2)
    with products_in(name, CPU):
        assert (values @ values).dtype is getattr(torch, name)
        assert values.log_softmax(-1).dtype is torch.float32


# ---- memory -------------------------------------------------------------------------------------


def test_peak_memory_is_what_the_system_counted():
    status = Path("/proc/self/status")
    if not status.is_file():
        pytest.skip("no /proc to compare with")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    peak = peak_memory(CPU)
    assert peak.keys() == {"memory_mb"}
    assert peak["memory_mb"] == pytest.approx(int(line.split()[1]) * 1024 / 1e6, rel=0.05)


def test_peak_memory_is_nan_on_systems_that_do_not_count_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(peak_memory(CPU)["memory_mb"])
