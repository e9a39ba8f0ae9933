"""Provide observers, which follow a run."""
