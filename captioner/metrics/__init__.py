"""Scores and statistics of predictions; no model."""
