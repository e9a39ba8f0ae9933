"""Provide the framework as scikit-learn clusterers: of images, and of rows of features."""
