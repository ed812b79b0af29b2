"""Models: their contract, shared layers and losses, and a package per task."""
