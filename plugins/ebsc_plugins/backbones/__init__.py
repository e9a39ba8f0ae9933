"""Provide backbones, which map images to features."""
