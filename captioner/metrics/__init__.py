"""Metrics of predictions: scores, intervals and statistics, without any model."""
