"""Read, store, summarise and whiten rows of features."""
