"""What augmentations do to one's own data, in pictures."""
