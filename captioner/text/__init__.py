"""Words and tokens: splitting sentences, vocabularies, token tensors, n-grams."""
