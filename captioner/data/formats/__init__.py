"""Readers of caption files, one module per layout.

Each has `recognise` and `read`. Neither validates; `readers.validate` does this for all formats.
"""
