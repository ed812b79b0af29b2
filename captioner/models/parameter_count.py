"""Counts of a model's parameters, as training, `captioner info` and model cards state them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def count_parameters(model: "nn.Module") -> dict[str, int]:
    """Return the number of values in all parameters, "total", and in those that are "trained".

    Parameters of a frozen encoder count as well; buffers, such as the statistics of batch norms, do
    not.
    """
    parameters = list(model.parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return {"total": sum(parameter.numel() for parameter in parameters), "trained": trained}


def describe_parameters(counts: Mapping[str, int]) -> str:
    """Return the counts as "3,458,439 parameters (1,234,567 trained)"."""
    return f"{counts['total']:,} parameters ({counts['trained']:,} trained)"
