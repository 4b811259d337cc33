"""Pages about studies: the report of one, and several side by side."""
