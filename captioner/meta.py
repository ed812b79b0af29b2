"""Building models without memory, on the meta device of torch: shapes without values."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functions that only change the values of their first argument, or broadcast their first two.
_UNCHANGED = frozenset(
    "normal_ uniform_ batch_norm dropout relu relu_ relu6 hardtanh silu gelu sigmoid hardswish "
    "hardsigmoid".split()
)
_BROADCAST = frozenset("add add_ __add__ __iadd__ mul mul_ __mul__ __imul__".split())


class _NoValues(TorchFunctionMode):
    """Computes the shapes of common operations on the meta device.

    torch itself would import its compiler to compute them, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named, name = kwargs or {}, getattr(func, "__name__", "")
        if name in _UNCHANGED:
            target = args[0] if args else named.get("tensor")  # of torch.nn.init
            if isinstance(target, Tensor) and target.is_meta:
                return target
        if name in _BROADCAST and all(isinstance(a, Tensor) and a.is_meta for a in args[:2]):
            shapes: Any = torch.functional  # its functions have no types
            return args[0].new_empty(shapes.broadcast_shapes(args[0].shape, args[1].shape))
        return func(*args, **named)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Build modules with shapes and dtypes but without memory; assign their weights afterwards."""
    with torch.device("meta"), _NoValues():
        yield
