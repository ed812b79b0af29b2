"""Device selection, numeric precision and memory use."""

import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .options import option

if TYPE_CHECKING:
    import torch

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")


@dataclass(frozen=True)
class RuntimeOptions:
    """The device and precision of a trained model, and whether to compile its decoding step."""

    device: str | None = option(None, "cpu, cuda, cuda:N or mps [cuda if available]")
    precision: str = option("float32", "precision of decoding; auto: fastest", choices=PRECISIONS)
    compile: bool = option(False, "compile the decoding step with torch.compile")


def pick_device(device: "str | torch.device | None") -> "torch.device":
    """Return the named device; for None, CUDA if it is available, otherwise the CPU.

    Raises InputError if the type of the device is not supported or the device is not available.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if str(device).partition(":")[0] not in ("cpu", "cuda", "mps"):
        raise InputError(f"device must be cpu, cuda, cuda:N or mps, got {str(device)!r}")
    try:
        chosen: torch.device = torch.device(device)
        if chosen.type == "mps":
            _check_mps(chosen)
        else:
            torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {str(device)!r} cannot be used: {reason}; choose another device"
        ) from error
    return chosen


def _check_mps(device: "torch.device") -> None:
    """Raise RuntimeError unless `device` is an available Apple GPU.

    This replaces torch's own error message, which is about a page long.
    """
    import torch

    if not torch.backends.mps.is_available():
        raise RuntimeError("no Apple GPU is available to this build of torch")
    if device.index not in (None, 0):
        raise RuntimeError("there is only one Apple GPU, mps")


def device_of(model: Any) -> "torch.device":
    """Return the device of a torch module's first parameter."""
    device: torch.device = next(model.parameters()).device
    return device


def pick_precision(name: str, device: "torch.device") -> "torch.dtype":
    """Return the dtype, bfloat16 or float32, of products and convolutions outside decoding.

    name: one of PRECISIONS. "auto" and "int8" select bfloat16 on devices with faster bfloat16
    matrix products: CUDA GPUs with hardware support, and CPUs with AMX or AVX512-BF16. On Apple
    GPUs, they select float32, and so does "bfloat16" if autocast does not support it. Raises
    InputError for an unknown name.
    """
    import torch

    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    if device.type == "mps":
        half = name == "bfloat16" and _mps_has_bfloat16()
    elif name in ("float32", "bfloat16"):
        half = name == "bfloat16"
    elif device.type == "cuda":
        with torch.cuda.device(device):
            half = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = torch.cpu.get_capabilities()
        half = bool(features.get("amx_bf16", False) or features.get("avx512_bf16", False))
    return torch.bfloat16 if half else torch.float32


def training_format(name: str, device: "torch.device") -> str:
    """Return the name of the dtype of `pick_precision`: training decodes in its own precision."""
    return str(pick_precision(name, device)).removeprefix("torch.")


def pick_format(name: str, device: "torch.device") -> str:
    """Return the number format of the products of decoding for a precision name.

    name: one of PRECISIONS. The format is "float32", "bfloat16" or "int8". "auto" selects int8 on
    CPUs with VNNI instructions if this build of torch supports it (see docs/performance.md);
    otherwise it selects the dtype of `pick_precision`. Raises InputError for int8 if the device or
    this build of torch does not support it, and for an unknown name.
    """
    import torch

    half = pick_precision(name, device) == torch.bfloat16
    able = torch.cpu.get_capabilities()
    vnni = able.get("avx512_vnni", False) or able.get("avx_vnni", False)
    has_int8 = device.type == "cpu" and vnni and hasattr(torch.ops.onednn, "qlinear_pointwise")
    if name == "int8" and not has_int8:
        raise InputError(
            "precision int8 needs a CPU with VNNI instructions and a build of torch with oneDNN; "
            "choose another precision"
        )
    if name == "int8" or (name == "auto" and has_int8):
        return "int8"
    return "bfloat16" if half else "float32"


def _mps_has_bfloat16() -> bool:
    """Return whether autocast supports bfloat16 on Apple GPUs (since torch 2.6 and macOS 14)."""
    import torch

    return torch.amp.is_autocast_available("mps") and torch.backends.mps.is_macos_or_newer(14, 0)


def products_in(name: str, device: "torch.device") -> AbstractContextManager[object]:
    """Return a context in which matrix products and convolutions use the precision `name`."""
    import torch

    precision = pick_precision(name, device)
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


@contextmanager
def memory_advice(tried: str, advice: str) -> Iterator[None]:
    """Convert an out-of-memory error into an InputError; leave all other errors unchanged.

    tried: what did not fit into memory, such as "a step with batch size 16 in float32". advice:
    what to do.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"not enough memory for {tried}{reason and f' ({reason})'}; {advice}"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # Only CUDA has a type for this error.
    texts = ("can't allocate memory", "not enough memory", "MPS backend out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        text in str(error) for text in texts
    )


def peak_memory(device: "torch.device") -> dict[str, float]:
    """Return the peak memory of this process in MB: `memory_mb`, and on CUDA `gpu_memory_mb`.

    `memory_mb` is NaN on systems without getrusage (Windows).
    """
    peaks = {"memory_mb": _peak_bytes() / 1e6}
    if device.type == "cuda":
        import torch

        peaks["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 1e6
    return peaks


def _peak_bytes() -> float:
    try:
        import resource
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
