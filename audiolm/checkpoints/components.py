"""The components a checkpoint is made of: their names, classes, and what each is made for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from audiolm.codec import Codec
from audiolm.config import STAGES, CodecConfig, Config, DetectorConfig, MaskedConfig, SemanticConfig, StageConfig
from audiolm.detector import Detector
from audiolm.errors import CheckpointError, ConfigError
from audiolm.lm import StageModel
from audiolm.lm.masked import MaskedModel
from audiolm.semantic import SemanticTokenizer

MAX_SIZE, MAX_DEPTH, MAX_ITEMS = 2**16, 256, 4096  # of a config: widths and vocabularies, layers, lists
SKETCHED_FROM = 2**25  # by the measure of `_check_numbers`; sketching is slow when first done, the others need it not
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
    MASKED: ("codec", "stage_fine"),  # whose tables it uses; nothing is made for it, and no detector is bound to it
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
        published = config.get("extractor", "w2vbert") != "w2vbert"  # which brings sizes of its own
        large = published or _check_numbers(component, config) > SKETCHED_FROM
        with torch.device("meta") if large else nullcontext():  # else memory is taken that no weights may bear out
            module = build_component(component, config)
    except (CheckpointError, ConfigError) as error:
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
    if large:
        module = build_component(component, config)
    module.load_state_dict(dict(tensors))
    return module.eval().requires_grad_(False)


def read_config(component: str, config: Mapping[str, Any]) -> Config:
    """The config object of a component. Raises ConfigError, or CheckpointError for an unknown component."""
    require_component("", component)
    _check_numbers(component, config)
    return _CLASSES[component][1].from_dict(dict(config))


def _check_numbers(component: str, config: Mapping[str, Any]) -> int:
    """Largest number squared times depth: of the order of a layer's weights times layers. Raises ConfigError for
    numbers beyond any model of this kind: making one of a million layers takes hours."""
    left: list[tuple[str, Any]] = [(component, dict(config))]
    largest, depth = 1, 1
    while left:
        name, value = left.pop()
        is_depth = any(word in name for word in ("layers", "blocks"))
        most = MAX_DEPTH if is_depth else MAX_SIZE
        if isinstance(value, dict):
            left += [(str(inner), found) for inner, found in value.items()]
        elif isinstance(value, list | tuple):
            left += [(name, found) for found in value]
        if isinstance(value, dict | list | tuple) and len(value) > MAX_ITEMS:
            raise ConfigError(f"{name[:80]} has {len(value)} items, at most {MAX_ITEMS} are taken")
        if isinstance(value, int):
            if abs(value) > most:
                raise ConfigError(f"{name[:80]} must be at most {most}, found {value}")
            largest, depth = max(largest, 0 if is_depth else value), max(depth, value if is_depth else 1)
    return largest**2 * depth


def require_component(where: str, component: str) -> None:
    if component not in COMPONENTS:
        raise CheckpointError(f"{where}unknown component {component!r}: expected one of {', '.join(COMPONENTS)}")
