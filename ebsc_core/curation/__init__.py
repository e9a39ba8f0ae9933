"""Name, merge, search and export the clusters of a finished run."""
