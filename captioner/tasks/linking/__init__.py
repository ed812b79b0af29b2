"""Systems that embed images and texts in a shared space."""
