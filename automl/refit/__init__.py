"""From the winners of a study to a model folder."""
