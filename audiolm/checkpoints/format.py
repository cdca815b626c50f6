"""The checkpoint folder: config.json, README.md (the model card) and `<component>.safetensors`; and run folders.

config.json, format 1:
    {"format": 1, "name", "domain", "summary",
     "components": {component: {"config": {...}, "hash": sha, "files": {file: sha}, "made_for": {tokenizer: sha}}}}
`hash` is `component_hash` of the weights. `made_for` names the tokenizers a stage or detector was trained with:
stages the `token_hash` (a codec whose decoder alone changed keeps its stages), the detector the codec's whole hash
(it judges the decoder's sound). A set that does not fit together is refused.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from audiolm.checkpoints.strict_json import read_object, require_fields
from audiolm.checkpoints.tensors import (
    as_shipped,
    component_hash,
    read_tensors,
    token_hash,
)
from audiolm.config import (
    STAGES,
    CodecConfig,
    Config,
    DetectorConfig,
    SemanticConfig,
    StageConfig,
)
from audiolm.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    pass

__all__ = [
    "COMPONENTS",
    "as_shipped",
    "build_component",
    "component_hash",
    "read_run",
    "token_hash",
]

FORMAT = 1
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
RUN_WEIGHTS_FILE = "weights.safetensors"
MAX_CARD_BYTES = 2**20
MAX_SUMMARY_CHARACTERS = 400

REQUIRED = ("codec", "semantic", *(f"stage_{stage}" for stage in STAGES))
COMPONENTS = (*REQUIRED, "detector")
MADE_FOR = {
    "codec": (),
    "semantic": (),
    "stage_semantic": ("semantic",),
    "stage_coarse": ("codec", "semantic"),
    "stage_fine": ("codec",),
    "detector": ("codec",),
}
_CLASSES: dict[str, tuple[str, str, type[Config]]] = {
    "codec": ("audiolm.codec", "Codec", CodecConfig),
    "semantic": ("audiolm.semantic", "SemanticTokenizer", SemanticConfig),
    **{f"stage_{stage}": ("audiolm.lm", "StageModel", StageConfig) for stage in STAGES},
    "detector": ("audiolm.detector", "Detector", DetectorConfig),
}


def build_component(component: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised module of a component name and the JSON object of its config.

    Raises CheckpointError for an unknown component, an invalid config, or sizes this machine cannot hold.
    """
    if component not in _CLASSES:
        raise CheckpointError(f"unknown component {component!r}: expected one of {', '.join(COMPONENTS)}")
    module_name, class_name, config_class = _CLASSES[component]
    model_class = getattr(importlib.import_module(module_name), class_name)
    try:
        return model_class(config_class.from_dict(dict(config)))
    except ConfigError as error:
        raise CheckpointError(f"{component}: {error}") from error
    except (ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{component}: its config cannot be built ({error})") from error


def read_run(folder: Path | str) -> tuple[str, dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """(component, config, state dict, made_for) of a training run's folder; float32 weights as trained.

    Raises CheckpointError where config.json or weights.safetensors is missing, truncated or foreign.
    """
    folder = Path(folder)
    where = folder / CONFIG_FILE
    value = require_fields(str(where), read_object(where), {"component": str, "config": dict, "made_for": dict})
    component = value["component"]
    if component not in COMPONENTS:
        raise CheckpointError(f"{where}: unknown component {component!r}: expected one of {', '.join(COMPONENTS)}")
    made_for = _hashes(f"{where}: made_for", value["made_for"])
    return component, value["config"], read_tensors([folder / RUN_WEIGHTS_FILE]), made_for


def _hashes(where: str, value: dict[str, Any]) -> dict[str, str]:
    for name, digest in value.items():
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CheckpointError(f"{where}: {name!r} must be a SHA-256 in 64 lower-case hex digits, found {digest!r}")
    return value
