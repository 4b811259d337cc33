"""One clip on a page: its frames, faces, sound and score over time."""
