"""Train: warm up, run the joint mini-batch phase, and extract features of all images."""
