"""Programs in which people keep their experiments: MLflow, Weights & Biases, TensorBoard."""
