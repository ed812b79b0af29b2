"""Models: their interface, shared layers and losses, and one package per task."""
