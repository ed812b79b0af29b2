"""Training: configuration, set-up, the loop, optimisation, logging."""
