"""Trained models at work: captioning many images, resumable output, export."""
