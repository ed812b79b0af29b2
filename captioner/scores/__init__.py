"""How good captions are, in numbers, and how sure these are; metrics.py, above, asks for them."""
