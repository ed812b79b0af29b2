"""Deprecated alias of `captioner.plots.heatmaps`, kept for one release."""

import warnings

from .plots.heatmaps import save_heatmap

__all__ = ["save_heatmap"]
warnings.warn(
    "captioner.heatmaps is deprecated; use captioner.plots.heatmaps",
    DeprecationWarning,
    stacklevel=2,
)
