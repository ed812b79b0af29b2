"""The version of the library, which imports nothing."""

__version__ = "0.1.0"
