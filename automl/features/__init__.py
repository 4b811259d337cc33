"""Frozen features: what a backbone's layers say of each image, and how well a linear probe tells classes by them."""
