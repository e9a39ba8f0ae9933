"""Training: the joint mini-batch phase, and refinement on cached features."""
