"""`captioner serve`: requests, answers, the page; captions come from captioner.py."""
