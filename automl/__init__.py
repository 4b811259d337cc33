"""Finds the best timm backbone and fine-tuning recipe under a fixed GPU memory and time budget."""

__version__ = "0.1.0"
