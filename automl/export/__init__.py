"""What becomes of the winner: trained, written to a model folder, exported, and asked for predictions."""
