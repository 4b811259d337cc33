"""One training run: a network, its batches, a loop, and what it is worth. Imports no Optuna."""
