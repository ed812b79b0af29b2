"""The task of relating images and texts: how much they share, and whether they agree."""
