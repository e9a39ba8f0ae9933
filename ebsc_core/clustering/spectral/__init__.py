"""From an affinity to clusters: leading eigenvectors, an embedding by them, k-means."""
