"""torchvision, imported without torch._dynamo.

torchvision.ops (0.29.1) imports one function from torch._dynamo.utils that only operators of
detection networks call; importing that module takes longer than the rest of torchvision.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

HEAVY = "torch._dynamo.utils"


class _Deferred(ModuleType):
    """A placeholder for HEAVY; its function imports the real module when it is called."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> bool:
        return bool(import_module(HEAVY).is_compile_supported(device_type))

    def __getattr__(self, name: str) -> Any:
        """Return what else an import may ask for, from the real module."""
        if name.startswith("__"):  # which `inspect` asks of every module
            raise AttributeError(name)
        sys.modules.pop(HEAVY, None)
        return getattr(import_module(HEAVY), name)


def _import_torchvision() -> ModuleType:
    if HEAVY in sys.modules:
        return import_module("torchvision")
    placeholder = sys.modules[HEAVY] = _Deferred(HEAVY)
    try:
        return import_module("torchvision")
    finally:
        if sys.modules.get(HEAVY) is placeholder:
            del sys.modules[HEAVY]


torchvision: Any = _import_torchvision()
