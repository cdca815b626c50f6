"""Semantic tokens: a self-supervised encoder at 25 Hz whose features are quantized by k-means."""
