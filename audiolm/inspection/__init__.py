"""What a model heard, chose and doubted: scores of tokens, the aligned timeline, the ladder and ablations, as values."""
