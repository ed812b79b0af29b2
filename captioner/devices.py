"""Which device computes, in which number format, and how much memory that took."""

import resource
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .options import option

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class RuntimeOptions:
    """The device that a trained model runs on, its number format, and whether it is compiled."""

    device: str | None = option(None, "cpu, cuda, cuda:N or mps [cuda if available]")
    precision: str = option("float32", "auto: bfloat16 where it is faster", choices=PRECISIONS)
    compile: bool = option(False, "fuse the decoding steps with torch.compile")


def pick_device(device: "str | torch.device | None") -> "torch.device":
    """The device named, or CUDA where there is one, or the CPU."""
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(device).partition(":")[0] not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu, cuda or cuda:N, got {str(device)!r}")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used: {reason}") from error
    return chosen


def device_of(model: Any) -> "torch.device":
    """The device of the first parameter of a torch module."""
    return next(model.parameters()).device


def pick_precision(name: str, device: "torch.device") -> "torch.dtype":
    """bfloat16 or float32; "auto" takes bfloat16 where the device multiplies it faster.

    Those are GPUs that have it, and CPUs with AMX or AVX512-BF16.
    """
    import torch

    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if name == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):
                fast = torch.cuda.is_bf16_supported(including_emulation=False)
            name = "bfloat16" if fast else "float32"
        else:
            able = torch.cpu.get_capabilities()
            fast = able.get("amx_bf16", False) or able.get("avx512_bf16", False)
            name = "bfloat16" if fast else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def products_in(name: str, device: "torch.device") -> AbstractContextManager[object]:
    """Inside, matrix products and convolutions work in the precision called `name`."""
    import torch

    precision = pick_precision(name, device)
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def peak_memory(device: "torch.device") -> dict[str, float]:
    """The most that this process has held so far, in MB: `memory_mb`, on CUDA `gpu_memory_mb`."""
    unit = 1 if sys.platform == "darwin" else 1024  # what getrusage counts in
    peaks = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
    if device.type == "cuda":
        import torch

        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return peaks
