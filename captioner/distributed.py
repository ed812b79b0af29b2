"""Training and evaluation in several processes started by torchrun.

In a process that torchrun did not start, every function here does nothing or returns its input.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .errors import InputError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by torchrun


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group of torchrun, if there is one, and leave it on exit.

    With the device "cuda", each process uses the GPU of its local rank. Raises InputError if there
    are more processes than GPUs on this machine, if some of torchrun's variables are missing or
    wrong, or if the group cannot be joined.
    """
    if not _in_group():
        yield
        return
    if device.type == "cuda" and device.index is None:
        local_rank, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= count:
            raise InputError(
                f"this machine has {count} GPUs; start at most {count} processes on it"
            )
        torch.cuda.set_device(local_rank)
    # The timeout must allow the first process to compute features while the others wait.
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(hours=12))
    except (ValueError, RuntimeError) as error:
        address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"the processes cannot meet at {address} (MASTER_ADDR and MASTER_PORT): "
            f"{str(error).splitlines()[0]}; start them with torchrun"
        ) from error
    try:
        yield
    finally:
        dist.destroy_process_group()


def _in_group() -> bool:
    """Return whether torchrun started this process as one of a group.

    Schedulers leave some of torchrun's variables in the environment, which does no harm to a single
    process. Of several, each would train alone, so that InputError is raised.
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
            f"RANK must be below WORLD_SIZE, got RANK {rank} and WORLD_SIZE {size}; start the "
            "processes with torchrun, which sets them"
        )
    return True


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
    """Print in the first process only."""
    if is_first():
        print(text, flush=True)


def barrier() -> None:
    """Wait until all processes reach this point."""
    if dist.is_initialized():
        dist.barrier()


def unwrap(module: nn.Module) -> Any:
    """Return the model itself, without its data-parallel wrapper."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def share_buffers(module: nn.Module) -> None:
    """Copy the buffers of the first process to all; batch-norm statistics differ per process."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def total(values: Tensor) -> Tensor:
    """Return the sum over all processes, in every process."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(item: Any) -> list[Any]:
    """Return the items of all processes in order of rank, in every process."""
    if not dist.is_initialized():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
