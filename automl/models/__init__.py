"""A trained model as a folder: reading, joining, scoring and predicting. Imports no Optuna."""
