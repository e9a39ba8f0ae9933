"""Clusterers of an affinity or of features."""
