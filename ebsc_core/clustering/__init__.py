"""Cluster rows: compute coefficients, an affinity and clusters, and measure the result."""
