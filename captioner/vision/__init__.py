"""Image encoders: networks, their weights and geometry, stored feature maps."""
