"""Models that link images and texts: in a shared space, or by scores of pairs."""
