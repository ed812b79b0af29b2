"""Measurements of the benchmarks: times, machine limits, memory, tables."""

import argparse
import ctypes
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

Work = Callable[[], object]


def device_of(argv: argparse.Namespace) -> torch.device:
    """Return the chosen device, else CUDA if available."""
    return torch.device(argv.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def arguments(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", help="cpu or cuda [cuda if available]")
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of runs of each case (default: 5)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="also measure with torch.compile, where supported"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a single round, and no tables of growth"
    )
    chosen = parser.parse_args(argv)
    if chosen.quick:
        chosen.rounds = 1
    return chosen


def seconds(work: Work, device: torch.device) -> float:
    """Return the duration of one call, measured with device events on a GPU."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def side_by_side(cases: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each case; cases alternate, so slow periods affect all of them.

    The first round is a warm-up and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, work in cases.items():
            taken = seconds(work, device)
            if number:
                times[name].append(taken)
    return {name: sorted(taken)[len(taken) // 2] for name, taken in times.items()}


def matrix_limits(device: torch.device) -> tuple[dict[str, Work], int]:
    """Build large matrix products in both precisions, and count their operations."""
    size = 2048 if device.type == "cpu" else 8192
    works: dict[str, Work] = {}
    for precision in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(size, size, device=device).to(precision) for _ in range(2))
        works[f"limit in {precision}".replace("torch.", "")] = partial(torch.mm, left, right)
    return works, 2 * size**3


def limits_of(times: dict[str, float], operations: int) -> tuple[float, str]:
    """Remove the limits from the measured times.

    Returns the float32 limit, in operations per second, and a sentence about both.
    """
    exact, half = (operations / times.pop(f"limit in {name}") for name in ("float32", "bfloat16"))
    both = f"Matrix limits: {exact / 1e9:,.0f} GFLOP/s in float32, {half / 1e9:,.0f} in bfloat16."
    return exact, both


def copy_limit(device: torch.device) -> float:
    """Measure the bytes per second read and written by a large copy."""
    source = torch.zeros(2**26 if device.type == "cpu" else 2**30, device=device)
    target = torch.empty_like(source)
    taken = side_by_side({"": lambda: target.copy_(source)}, 9, device)[""]
    return 2 * source.numel() * source.element_size() / taken


def peak_memory(work: Work, device: torch.device) -> float:
    """Return the peak megabytes that a call allocates in addition; NaN if unknown."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    try:
        ctypes.CDLL(None).malloc_trim(0)  # otherwise reused free memory would not be counted
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak resident size
    except (OSError, AttributeError):
        return float("nan")
    held = resident("VmRSS")
    work()
    return resident("VmHWM") - held


def resident(name: str = "VmRSS") -> float:
    """Return resident megabytes: current (VmRSS), anonymous (RssAnon) or peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format a Markdown table; numbers have three significant figures."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def machine(device: torch.device) -> str:
    """Describe processor or GPU, threads, versions and date in one sentence."""
    if device.type == "cuda":
        what = torch.cuda.get_device_name(device)
    else:
        cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        able = torch.cpu.get_capabilities()
        formats = [n for n in ("avx512_f", "avx512_bf16", "amx_bf16") if able.get(n)]
        name = cpu[0].partition(": ")[2] if cpu else platform.processor()
        what = f"{name}, {os.cpu_count()} cores, {', '.join(formats) or 'no AVX-512'}"
    return (
        f"{what}; torch {torch.__version__} with {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}."
    )
