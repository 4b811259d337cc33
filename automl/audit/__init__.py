"""What the files of a data set give away: properties that say nothing of their content and predict the label."""
