"""Metrics of predictions: scores, intervals and statistics; no models."""
