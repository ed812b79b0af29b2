"""Metrics of predictions: scores, intervals and statistics, independent of any model."""
