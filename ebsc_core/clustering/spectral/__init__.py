"""Turn an affinity into clusters: compute leading eigenvectors, embed the rows, run k-means."""
