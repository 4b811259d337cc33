"""The real card: what is free, what a training step takes on it, and budgets."""
