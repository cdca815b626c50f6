"""Checkpoints: the folder format, where they come from (embedded, folders, the Hugging Face Hub), the model card."""

from audiolm.checkpoints.format import (
    CheckpointInfo,
    ComponentEntry,
    ModelSet,
    load_checkpoint,
    read_info,
    write_checkpoint,
)

__all__ = ["CheckpointInfo", "ComponentEntry", "ModelSet", "load_checkpoint", "read_info", "write_checkpoint"]
