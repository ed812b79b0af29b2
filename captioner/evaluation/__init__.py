"""Evaluation: caption a split, score the captions, report the scores."""
