"""Files on disk, inside tar files and on servers, by one way to name them."""
