"""Models: the contract, losses and layers they share, and a room for each family."""
