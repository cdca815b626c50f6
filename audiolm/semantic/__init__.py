"""Semantic tokens: a self-supervised encoder at 25 Hz whose features are quantized by k-means."""

from audiolm.semantic.tokenizer import SemanticTokenizer

__all__ = ["SemanticTokenizer"]
