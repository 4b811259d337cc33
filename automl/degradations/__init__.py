"""Degradations: what happens to files on their way to a detector, as data; and degraded copies of files."""
