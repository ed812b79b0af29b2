"""The generated data set that comes with the library."""
