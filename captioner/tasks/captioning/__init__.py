"""Captioning: training, evaluation during training, samples and suggested commands."""
