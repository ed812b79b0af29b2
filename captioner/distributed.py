"""Training and evaluation in several processes started by torchrun.

In a process that torchrun did not start, all functions behave as in a group of one process.

A process that hangs must not block the others forever. They wait at most STEP_SECONDS within a
training step (SERVER_SECONDS if images come from a server), FEATURES_SECONDS while features are
computed, and ROUND_SECONDS elsewhere.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from . import console
from .errors import InputError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun

STEP_SECONDS = 20  # between two steps, unless the images come from a server
SERVER_SECONDS = 300  # the same if they do: lost connections are tried again
ROUND_SECONDS = 3600  # evaluation and saving
FEATURES_SECONDS = 12 * 3600  # the first process checks images and computes features
REPORT_SECONDS = 2  # in which a process that waits in vain reports to the others


@dataclass(frozen=True)
class _Groups:
    """The process groups besides the default one, which differ in their timeouts.

    store: the store through which the processes report to each other. places: host, process
    namespace and process id of each process, by rank.
    """

    step: Any  # torch annotates new_group as returning an int, too
    features: Any
    store: Store
    places: list[tuple[str, str, int]]


_groups: _Groups | None = None


@contextmanager
def process_group(device: torch.device, step_seconds: float = STEP_SECONDS) -> Iterator[None]:
    """Join the process group of torchrun, if there is one, and leave it on exit.

    With the device "cuda", each process uses the GPU of its local rank. step_seconds: how long a
    process may block the others in a training step. Raises InputError if there are more
    processes than GPUs on this machine, if some of torchrun's variables are missing or invalid, or
    if the group cannot be joined.
    """
    global _groups
    if not _in_group():
        yield
        return
    if device.type == "cuda" and device.index is None:
        local_rank, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= count:
            raise InputError(
                f"process {local_rank} has no GPU: this machine has {count}; start at most one "
                "process per GPU"
            )
        torch.cuda.set_device(local_rank)
    backend, patience = "nccl" if device.type == "cuda" else "gloo", timedelta(0, ROUND_SECONDS)
    try:
        store, rank, size = _rendezvous(patience)
        dist.init_process_group(backend, timeout=patience, store=store, rank=rank, world_size=size)
    except (ValueError, RuntimeError) as error:
        address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"the processes cannot connect to {address} (MASTER_ADDR and MASTER_PORT): "
            f"{str(error).splitlines()[0]}; check that the host can be reached, that the port is "
            "free, and that torchrun has started all processes"
        ) from error
    try:
        _groups = _Groups(
            dist.new_group(timeout=timedelta(0, step_seconds)),
            dist.new_group(timeout=timedelta(0, FEATURES_SECONDS)),
            store,
            gather(_place()),
        )
        yield
    finally:
        _groups = None
        dist.destroy_process_group()


def _in_group() -> bool:
    """Return whether torchrun started this process as one of a group.

    Some schedulers set only some of torchrun's variables, which is harmless for a single process.
    Several processes would each train alone, so InputError is raised. It is also raised for an
    invalid RANK or WORLD_SIZE.
    """
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    size = os.environ.get("WORLD_SIZE") or "1"
    if missing and size == "1":
        return False
    if missing:
        unset = f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not set"
        raise InputError(
            f"WORLD_SIZE is {size}, but {unset}; start the processes with torchrun, which sets "
            "all variables, or unset WORLD_SIZE"
        )
    rank = os.environ["RANK"]
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise InputError(
            "RANK and WORLD_SIZE must be integers with 0 <= RANK < WORLD_SIZE, got RANK "
            f"{rank} and WORLD_SIZE {size}; start the processes with torchrun, which sets them"
        )
    return True


def _rendezvous(timeout: timedelta) -> tuple[Store, int, int]:
    """Return the store of torchrun's processes, the rank of this process and their number.

    When torchrun restarts the processes, the store still contains the addresses of the killed ones.
    If all processes are on this machine, the keys of each restart therefore have their own prefix.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:  # else counts may differ
        store = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    return store, rank, size


def _place() -> tuple[str, str, int]:
    """Return this process's host, process namespace (empty if unknown) and id."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return socket.gethostname(), namespace, os.getpid()


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Return whether this is the process that prints and writes files."""
    return rank() == 0


def say(text: str) -> None:
    """Print text in the first process only."""
    if is_first():
        console.say(text)


def barrier(*, features: bool = False) -> None:
    """Wait until all processes reach this point.

    features: whether to wait up to FEATURES_SECONDS instead of ROUND_SECONDS, because the first
    process checks images or computes features in the meantime.
    """
    if dist.is_initialized():
        dist.barrier(_groups.features if features and _groups else None)


def parallel(model: nn.Module) -> nn.Module:
    """Return the model, wrapped for data-parallel training if there are several processes."""
    if world_size() == 1:
        return model
    group = _groups.step if _groups else None
    return DistributedDataParallel(model, process_group=group, broadcast_buffers=False)


def unwrap(module: nn.Module) -> Any:
    """Return the model itself, without its data-parallel wrapper."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def share_buffers(module: nn.Module) -> None:
    """Copy the first process's buffers to all others, because batch-norm statistics differ."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def total(values: Tensor) -> Tensor:
    """Return, in every process, the sum of the values over all processes.

    All processes must call this in the same training step. Raises InputError if another process has
    ended or does not answer in time. A process on this machine that does not answer is killed,
    because torchrun would wait for another 30 seconds.
    """
    if dist.is_initialized():
        values = values.clone()
        try:
            dist.all_reduce(values, group=_groups.step if _groups else None)
        except RuntimeError as error:
            raise InputError(
                f"training stopped in process {rank()}, because {_end_silent()} ended or did not "
                "answer; see its messages, and pass --resume to continue"
            ) from error
    return values


def _end_silent() -> str:
    """Kill the processes on this machine that do not report to the store.

    Returns a text for a message: the ranks of all such processes, on any machine, or "another
    process" if all report or the store has ended.
    """
    assert _groups is not None
    silent = []
    with suppress(RuntimeError):  # the store has ended with its process
        _groups.store.set(f"waits/{rank()}", "")
        time.sleep(REPORT_SECONDS)
        silent = [i for i in range(world_size()) if not _groups.store.check([f"waits/{i}"])]
    here = _groups.places[rank()]
    for other in (_groups.places[i] for i in silent):
        if here[1] and other[:2] == here[:2]:
            with suppress(OSError):
                os.kill(other[2], signal.SIGKILL)
    if not silent:
        return "another process"
    return f"process{'es' * (len(silent) > 1)} {', '.join(map(str, silent))}"


def gather(item: Any) -> list[Any]:
    """Return, in every process, the items of all processes in order of rank."""
    if not dist.is_initialized():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
