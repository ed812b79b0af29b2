"""Files on disk, in tar files and on servers."""
