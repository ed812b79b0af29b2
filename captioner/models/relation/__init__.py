"""Models of how an image and a text of several sentences relate."""
