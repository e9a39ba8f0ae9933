"""Augmented views of images: which there are, what is drawn for each, and what is done to the pixels."""
