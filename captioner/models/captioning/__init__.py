"""Show and Tell, Show, Attend and Tell, and how they learn from samples and teachers."""
