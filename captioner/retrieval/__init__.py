"""Retrieval: projections of vectors, independent of the models that compute them."""
