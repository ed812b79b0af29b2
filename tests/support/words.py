"""The words of tiny vocabularies."""

WORDS = "a red green blue dog cat runs sits on the grass".split()
