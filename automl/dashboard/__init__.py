"""A study in optuna-dashboard, shown for people: notes, pictures and names are made when somebody looks."""
