"""Rows of features: in memory or in a file, read from any file type, summed up, whitened."""
