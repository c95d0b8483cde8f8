"""Training data: samples, labels, splits, chips, augmentation, dataset statistics."""
