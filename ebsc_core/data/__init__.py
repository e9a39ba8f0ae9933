"""Images in memory, and the views drawn from them."""
