"""Provide the components that ebsc ships; they use the same entry point as any other plugin."""
