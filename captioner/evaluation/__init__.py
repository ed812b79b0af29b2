"""Captioning a split, scoring it, and reporting the scores."""
