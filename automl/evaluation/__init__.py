"""A trained model on labelled samples that it was not trained on."""
