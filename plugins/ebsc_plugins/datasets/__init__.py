"""Provide named data sets, and read images from folders, zips and arrays."""
