"""Language models over tokens: one model, three stages (semantic, coarse, fine), two sequence layouts."""

from audiolm.lm.decode import generate_steps
from audiolm.lm.masked import MaskedModel
from audiolm.lm.slots import SlotBatch
from audiolm.lm.specs import MAX_RUN, SPECS, default_config, semantic_steps
from audiolm.lm.stage import StageModel

__all__ = [
    "MAX_RUN",
    "SPECS",
    "MaskedModel",
    "SlotBatch",
    "StageModel",
    "default_config",
    "generate_steps",
    "semantic_steps",
]
