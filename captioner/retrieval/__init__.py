"""Retrieval: search, index files, queries and projections of vectors, without any model."""
