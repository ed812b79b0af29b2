"""From model scores to captions: search, sampling, filters and reranking."""
