"""Captioning models, their ensembles, distillation, self-critical training."""
