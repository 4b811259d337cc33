"""Predicts the peak GPU memory of a training step without a GPU; a prediction that is in the cache needs no torch."""
