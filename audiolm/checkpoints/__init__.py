"""Checkpoints: the folder format, where they come from (embedded, folders, the Hugging Face Hub), the model card."""
