"""Text: words, vocabularies, token tensors, n-grams and sentence vectors."""
