"""Training: the warm-up, the joint mini-batch phase, and features of all images."""
