"""Captioning many images, resumable output, export to other runtimes."""
