"""Captioning, embedding and indexing of many images, and export to other runtimes."""
