"""Write, read, list and compare run directories."""
