"""Name, merge, split and export the clusters of a finished run."""
