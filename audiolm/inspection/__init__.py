"""What a model heard, chose and doubted, as values: scores of tokens, the aligned timeline, the ladder, ablations."""
