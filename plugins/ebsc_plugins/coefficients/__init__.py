"""Models of the self-expressive coefficients."""
