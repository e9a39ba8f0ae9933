"""Trackers that are told of a run."""
