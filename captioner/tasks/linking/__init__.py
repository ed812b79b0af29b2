"""Systems that place images and texts in one space."""
