"""A checkpoint on its way to others: what it is, its card, the hub."""
