"""Models: the contract, their shared layers and losses, and one package per task."""
