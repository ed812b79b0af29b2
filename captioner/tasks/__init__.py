"""The systems that can be trained: one Task each, and what a run of it does."""
