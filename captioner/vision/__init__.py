"""Image encoders, their weights and receptive fields, and stored features."""
