"""Provide clusterers, which cluster an affinity or features."""
