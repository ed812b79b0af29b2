"""Captioning models, their ensembles, distillation and self-critical training."""
