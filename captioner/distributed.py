"""The few lines that make torchrun work; without torchrun each of them does nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import InputError


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did, and leave them in the end."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda" and device.index is None:  # each process takes a GPU of its own
        local, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= there:
            raise InputError(f"there are {there} GPUs; start at most {there} processes here")
        torch.cuda.set_device(local)
    # Long, since the other processes wait while the first one computes the features of a data set.
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=12))
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes files and talks to people."""
    return rank() == 0


def say(text: str) -> None:
    """Print for people; one process of several does."""
    if is_first():
        print(text, flush=True)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def share_buffers(module: nn.Module) -> None:
    """Give all processes the first one's buffers: batch norm's statistics differ between them."""
    if dist.is_initialized():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def total(values: Tensor) -> Tensor:
    """The sum over all processes, in every process."""
    if dist.is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def gather(item: Any) -> list[Any]:
    """Each process's item, in order of rank, in every process."""
    if not dist.is_initialized():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items
