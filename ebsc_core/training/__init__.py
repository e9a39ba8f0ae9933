"""Train the objective, alone and in a joint phase, and extract features of all images."""
