"""The words of the tiny vocabulary that many tests share."""

WORDS = "a red green blue dog cat runs sits on the grass".split()
