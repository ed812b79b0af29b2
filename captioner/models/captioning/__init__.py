"""Captioning: Show and Tell, Show, Attend and Tell, ensembles, distillation, self-critical."""
