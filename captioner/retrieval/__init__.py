"""Retrieval: projections of vectors; not the models that compute the vectors."""
