"""Training: configuration, setup, the loop, optimisation and logging."""
