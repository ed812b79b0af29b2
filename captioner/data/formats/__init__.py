"""Readers of caption files: one module per layout, with `recognise` and `read`.

Readers do not validate what they read; `readers.validate` does it for all of them.
"""
