"""Define the contracts of components, find them through hooks and a registry, and scaffold new packages."""
