"""Name, merge, split, search and export the clusters of a finished run."""
