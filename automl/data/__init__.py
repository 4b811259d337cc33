"""Samples of one data set: recognised, split, decoded once, augmented."""
