"""Data sets and the file types images are read from."""
