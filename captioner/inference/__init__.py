"""Captioning of many images, resumable output, and export to other runtimes."""
