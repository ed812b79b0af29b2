"""Image encoders, their weights and receptive fields, cached feature maps."""
