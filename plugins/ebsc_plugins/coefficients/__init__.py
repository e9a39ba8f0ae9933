"""Provide models of the self-expressive coefficients."""
