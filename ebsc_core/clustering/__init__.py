"""The algorithm: rows, coefficients, affinity, clusters, and what is measured of them."""
