"""Image encoders, their weights and receptive fields, stored features."""
