"""Hold images in memory or stream them, from a data set or from Python objects."""
