"""Images, the views drawn from them, and rows of features."""
