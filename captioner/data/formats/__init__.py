"""One module per layout of caption files, each with `recognise` and `read`; nothing is validated here."""
