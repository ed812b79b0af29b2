"""Trained models on disk and on the hub: checkpoints, runs and model cards."""
