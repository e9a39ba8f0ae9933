"""Draw augmented views of images: their options, their random parameters and the change of pixels."""
