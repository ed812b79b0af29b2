"""Everything that is drawn: overlays, heatmaps, animations, curves, sample sheets, HTML."""
