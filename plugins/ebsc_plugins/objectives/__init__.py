"""Provide self-supervised objectives."""
