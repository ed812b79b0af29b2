"""Readers of caption files, one module per layout.

Each module has the functions `recognise` and `read`. Neither validates the examples;
`readers.validate` does so for all formats.
"""
