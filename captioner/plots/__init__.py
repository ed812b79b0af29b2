"""Plots: overlays, heatmaps, animations, sample sheets, training curves, HTML."""
