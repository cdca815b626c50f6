"""The components a checkpoint is made of: their names, classes, and what each is made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from audiolm.codec import Codec
from audiolm.config import STAGES, CodecConfig, Config, DetectorConfig, MaskedConfig, SemanticConfig, StageConfig
from audiolm.detector import Detector
from audiolm.errors import CheckpointError, ConfigError
from audiolm.lm import StageModel
from audiolm.lm.masked import MaskedModel
from audiolm.semantic import SemanticTokenizer

TOKENIZERS = ("codec", "semantic")
REQUIRED = (*TOKENIZERS, *(f"stage_{stage}" for stage in STAGES))
MASKED = "fine_masked"
COMPONENTS = (*REQUIRED, MASKED, "detector")
MADE_FOR: dict[str, tuple[str, ...]] = {
    "codec": (),
    "semantic": (),
    "stage_semantic": ("semantic",),
    "stage_coarse": ("codec", "semantic"),
    "stage_fine": ("codec",),
    MASKED: (
        "codec",
        "stage_fine",
    ),  # whose tables it uses; nothing is made for it: a detector knows the checkpoint by its stages
    "detector": ("codec", *(f"stage_{stage}" for stage in STAGES)),  # whole hashes: it judges what these sound like
}
_CLASSES: dict[str, tuple[type[nn.Module], type[Config]]] = {
    "codec": (Codec, CodecConfig),
    "semantic": (SemanticTokenizer, SemanticConfig),
    **{f"stage_{stage}": (StageModel, StageConfig) for stage in STAGES},
    MASKED: (MaskedModel, MaskedConfig),
    "detector": (Detector, DetectorConfig),
}


def build_component(component: str, config: Mapping[str, Any]) -> nn.Module:
    """A freshly initialised module of a component name and the JSON object of its config.

    Raises CheckpointError for an unknown component, an invalid config, or sizes this machine cannot hold.
    """
    require_component("", component)
    try:
        return _CLASSES[component][0](read_config(component, config))
    except ConfigError as error:
        raise CheckpointError(f"{component}: {error}") from error
    except (ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"{component}: its config cannot be built ({error})") from error


def load_component(component: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> nn.Module:
    """The module with these weights, float32, in eval mode, without gradients.

    Raises CheckpointError, beginning with `where`, for a tensor that is missing, unknown, or of another shape or kind.
    """
    try:
        module = build_component(component, config)
    except CheckpointError as error:
        raise CheckpointError(f"{where}: {error}") from error
    expected = module.state_dict()
    if missing := sorted(set(expected) - set(tensors)):
        raise CheckpointError(f"{where}: {component} lacks {len(missing)} tensor(s), the first is {missing[0]}")
    if unknown := sorted(set(tensors) - set(expected)):
        raise CheckpointError(f"{where}: {component} has {len(unknown)} unknown tensor(s), the first is {unknown[0]}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, its config asks for {tuple(expected[name].shape)}"
            raise CheckpointError(f"{where}: {component} tensor {name} has shape {shapes}")
        if tensor.is_floating_point() != expected[name].is_floating_point():
            dtypes = f"{tensor.dtype}, expected {expected[name].dtype}"
            raise CheckpointError(f"{where}: {component} tensor {name} is {dtypes}")
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def read_config(component: str, config: Mapping[str, Any]) -> Config:
    """The config object of a component. Raises ConfigError, or CheckpointError for an unknown component."""
    require_component("", component)
    return _CLASSES[component][1].from_dict(dict(config))


def require_component(where: str, component: str) -> None:
    if component not in COMPONENTS:
        raise CheckpointError(f"{where}unknown component {component!r}: expected one of {', '.join(COMPONENTS)}")
