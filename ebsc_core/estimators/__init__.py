"""The framework as scikit-learn knows clusterers: on images, and on rows of features."""
