"""The checkpoint folder: config.json, README.md (the card), its pictures, `<component>.safetensors`; and run folders.

config.json, format 1:
    {"format": 1, "name", "domain", "summary", "components": {component: entry}, "sampling": {stage: {...}}}
    entry: {"config": {...}, "hash": sha, "files": {file: sha}, "made_for": {component: sha}}
`hash` is `component_hash` of the weights; tokenizers also have a "token_hash". `made_for` names what a component was
trained with: a stage its tokenizers by their `token_hash` (a codec whose decoder alone was trained further keeps its
stages), the detector the codec and the stages by their whole hash (it judges what these sound like). A set that does
not fit is refused. `sampling`, the stages' defaults, may be missing, and is written where it is not the usual one.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiolm.checkpoints.components import (
    COMPONENTS,
    MADE_FOR,
    MASKED,
    TOKENIZERS,
    build_component,
    load_component,
)
from audiolm.checkpoints.info import (
    CARD_FILE,
    CONFIG_FILE,
    FORMAT,
    CheckpointInfo,
    ComponentEntry,
    check_card,
    check_format,
    check_labels,
    check_set,
    read_info,
    require_complete,
    require_hashes,
)
from audiolm.checkpoints.listener import LISTENER_VERSION, Listener
from audiolm.checkpoints.pictures import picture_names, require_pictures
from audiolm.checkpoints.strict_json import read_object, require_fields
from audiolm.checkpoints.tensors import (
    as_shipped,
    component_hash,
    read_tensors,
    token_hash,
    write_tensors,
)
from audiolm.codec import Codec
from audiolm.config import STAGES, USUAL_SAMPLING, SamplingConfig
from audiolm.detector import Detector
from audiolm.errors import CheckpointError
from audiolm.lm import StageModel
from audiolm.lm.masked import MaskedModel
from audiolm.semantic import SemanticTokenizer

__all__ = [
    "COMPONENTS",
    "CheckpointInfo",
    "ComponentEntry",
    "ModelSet",
    "Part",
    "as_shipped",
    "attach_codebooks",
    "build_component",
    "component_hash",
    "load_checkpoint",
    "load_component",
    "load_run",
    "read_info",
    "read_run",
    "token_hash",
    "write_checkpoint",
    "write_parts",
]

RUN_WEIGHTS_FILE = "weights.safetensors"


@dataclass
class ModelSet:
    """A loaded checkpoint: modules in eval mode, float32, without gradients; stages are keyed by `config.STAGES`.

    `fine_masked` fills whole windows in parallel where the autoregressive fine stage goes frame by frame.
    """

    info: CheckpointInfo
    codec: Codec
    semantic: SemanticTokenizer
    stages: dict[str, StageModel]
    detector: Detector | None
    device: torch.device
    fine_masked: MaskedModel | None = None


@dataclass(frozen=True)
class Part:
    """A component to be written: weights of any float dtype; what it was made for (None: this set's)."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    made_for: dict[str, str] | None = None


def read_run(folder: Path | str) -> tuple[str, dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """(component, config, state dict, made_for) of a training run's folder; float32 weights as trained.

    The component may be one that is no part of a checkpoint (a pre-trained encoder): `build_component` knows those that
    are. Raises CheckpointError where config.json or weights.safetensors is missing, truncated or foreign.
    """
    folder = Path(folder)
    where = folder / CONFIG_FILE
    value = require_fields(str(where), read_object(where), {"component": str, "config": dict, "made_for": dict})
    made_for = require_hashes(f"{where}: made_for", value["made_for"])
    return value["component"], value["config"], read_tensors([folder / RUN_WEIGHTS_FILE]), made_for


def load_run(folder: Path | str, device: str | torch.device = "cpu") -> tuple[str, nn.Module, dict[str, str]]:
    """(component, module in eval mode, made_for) of a run, with the values that ship: tokens must not change on export.

    Raises CheckpointError where the folder is unreadable, or its weights do not fit its config.
    """
    component, config, tensors, made_for = read_run(folder)
    return component, load_component(component, config, as_shipped(tensors), str(folder)).to(device), made_for


def load_checkpoint(folder: Path | str, device: str | torch.device = "cpu", verify: bool = True) -> ModelSet:
    """Loads every component as float32 onto the device; `verify` checks the SHA-256 of every file before it is parsed.

    Raises CheckpointError, naming the file, for whatever is missing, truncated, foreign or mismatched.
    """
    info = read_info(folder)
    modules = {name: _load_entry(info, name, verify).to(device) for name in info.components}
    stages = {stage: modules[f"stage_{stage}"] for stage in STAGES}
    attach_codebooks(stages, modules["codec"])
    if MASKED in modules:
        modules[MASKED].attach(stages["fine"])
    if "detector" in modules and (config := modules["detector"].config).num_heard:
        listener = Listener(modules["codec"], modules["semantic"], stages)
        wanted, given = (config.num_heard, config.listener_version), (listener.num_features, LISTENER_VERSION)
        if given != wanted:
            raise CheckpointError(
                f"{info.folder}: the detector reads {wanted[0]} figures of listener version {wanted[1]}, "
                f"these stages give {given[0]} of version {given[1]}; make it anew (detector-rebuild) or leave it out"
            )
        modules["detector"].attach(listener)
    return ModelSet(
        info=info,
        codec=modules["codec"],
        semantic=modules["semantic"],
        stages=stages,
        detector=modules.get("detector"),
        device=torch.device(device),
        fine_masked=modules.get(MASKED),
    )


def attach_codebooks(stages: Mapping[str, StageModel], codec: Codec) -> None:
    """Gives the coarse and fine stages the codec's code vectors of the levels they predict and know."""
    codebooks, num_coarse = codec.codebooks(), codec.config.num_coarse_levels
    if "coarse" in stages and stages["coarse"].config.feature_dimension:
        stages["coarse"].set_codebooks(codebooks[:num_coarse], None)
    if "fine" in stages and stages["fine"].config.feature_dimension:
        stages["fine"].set_codebooks(codebooks[num_coarse:], codebooks[:num_coarse])


def write_checkpoint(
    folder: Path | str,
    *,
    name: str,
    domain: str,
    summary: str,
    components: Mapping[str, nn.Module],
    card: str,
) -> CheckpointInfo:
    """Writes modules that belong together (each with a `config`); see `write_parts`."""
    parts = {key: Part(module.config.to_dict(), module.state_dict()) for key, module in components.items()}
    return write_parts(folder, name=name, domain=domain, summary=summary, parts=parts, card=card)


def write_parts(
    folder: Path | str,
    *,
    name: str,
    domain: str,
    summary: str,
    parts: Mapping[str, Part],
    card: str,
    sampling: Mapping[str, SamplingConfig] = USUAL_SAMPLING,
    pictures: Mapping[str, bytes] | None = None,
) -> CheckpointInfo:
    """Writes a checkpoint folder, over an older checkpoint if there is one; config.json last, so that half is none.

    `pictures` are those that the card shows, contents by name.

    Raises CheckpointError for a component that is unknown or lacking, parts made for other tokenizers, sizes that do
    not fit, an unusable name, domain, summary or card, weights that are not finite, or a folder holding other things.
    """
    folder = Path(folder)
    where = str(folder)
    check_labels(where, name, domain, summary)
    check_card(where, card.encode())
    require_pictures(where, card, pictures or {})
    require_complete(where, parts)
    entries = _entries(parts)
    check_set(where, entries)
    _require_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary)
        written = {}
        for component in (c for c in COMPONENTS if c in parts):
            files = write_tensors(new, component, parts[component].tensors)
            written[component] = _entry_to_dict(component, entries[component], files)
        config = {"format": FORMAT, "name": name, "domain": domain, "summary": summary, "components": written}
        if sampling != USUAL_SAMPLING:
            config["sampling"] = {stage: sampling[stage].to_dict() for stage in STAGES}
        (new / CARD_FILE).write_bytes(card.encode())
        for picture, content in (pictures or {}).items():
            (new / picture).write_bytes(content)
        (new / CONFIG_FILE).write_bytes((json.dumps(config, indent=1) + "\n").encode())
        read_info(new)
        _replace(folder, new)
    return read_info(folder)


def _entries(parts: Mapping[str, Part]) -> dict[str, ComponentEntry]:
    """Entries without files; what does not say what it was made for belongs to this set's tokenizers."""
    hashes = {name: component_hash(part.tensors) for name, part in parts.items()}
    token_hashes = {name: token_hash(parts[name].tensors) for name in TOKENIZERS}
    entries = {}
    for name, part in parts.items():
        own = hashes if name == "detector" else hashes | token_hashes
        made_for = own if part.made_for is None else require_hashes(f"{name}: made_for", part.made_for)
        made_for = {key: made_for[key] for key in MADE_FOR[name] if key in made_for}
        entries[name] = ComponentEntry(part.config, {}, hashes[name], token_hashes.get(name, ""), made_for)
    return entries


def _entry_to_dict(component: str, entry: ComponentEntry, files: dict[str, str]) -> dict[str, Any]:
    value = {"config": entry.config, "hash": entry.hash, "files": files, "made_for": entry.made_for}
    return {**value, "token_hash": entry.token_hash} if component in TOKENIZERS else value


def _require_replaceable(folder: Path) -> None:
    """Raises CheckpointError unless the folder is absent, empty or an older checkpoint."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: not a folder")
    if (folder / CONFIG_FILE).is_file():
        check_format(folder / CONFIG_FILE, read_object(folder / CONFIG_FILE))
    elif folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(f"{folder}: not empty and not a checkpoint; choose another folder")


def _replace(folder: Path, new: Path) -> None:
    """Moves the new files in and an older checkpoint's out; other files of the folder stay. config.json goes last."""
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    for path in list(folder.glob("*.safetensors")):
        if re.fullmatch(rf"({'|'.join(COMPONENTS)})(-\d{{5}}-of-\d{{5}})?\.safetensors", path.name):
            path.unlink()
    if (folder / CARD_FILE).is_file():
        for name in picture_names((folder / CARD_FILE).read_text(encoding="utf-8", errors="replace")):
            (folder / name).unlink(missing_ok=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        os.replace(path, folder / path.name)


def _load_entry(info: CheckpointInfo, component: str, verify: bool) -> nn.Module:
    entry = info.components[component]
    paths = [info.folder / name for name in entry.files]
    tensors = read_tensors(paths, entry.files if verify else None)
    where = str(info.folder / CONFIG_FILE)
    if verify:
        for name, found, expected in (
            ("hash", component_hash(tensors), entry.hash),
            ("token_hash", token_hash(tensors) if entry.token_hash else "", entry.token_hash),
        ):
            if found != expected:
                raise CheckpointError(f"{where}: {component} {name} is {expected}, its weights have {found}")
    return load_component(component, entry.config, tensors, str(paths[0]))
