"""The version of the library; this module imports nothing."""

__version__ = "0.1.0"
