"""Readers of caption files, one module per layout.

Each has `recognise` and `read`; neither validates, `readers.validate` does it for all of them.
"""
