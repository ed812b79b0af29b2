"""Plots: overlays, heatmaps, animations, sample sheets, training curves, projections, HTML."""
