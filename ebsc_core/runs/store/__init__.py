"""The folder of a run: written, unfinished, read back, listed, compared."""
