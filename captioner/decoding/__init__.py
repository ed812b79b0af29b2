"""From scores to captions: options, greedy and sampling, beam search, filters, reranking; no model."""
