"""Studies: pool, trials, workers and their supervisor."""
