"""Read images, draw views from them, and read and write rows of features."""
