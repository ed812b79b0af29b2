"""How the next words are chosen: the beam, the filters, what search needs of a model."""
