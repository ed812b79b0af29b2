"""Words and tokens: sentences split, vocabularies, padded token tensors, n-grams."""
