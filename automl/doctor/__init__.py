"""What may be wrong with a machine, before a search is started."""
