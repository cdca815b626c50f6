"""What config.json and the card say of a checkpoint, read strictly and without weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiolm.checkpoints.components import (
    COMPONENTS,
    MADE_FOR,
    MASKED,
    REQUIRED,
    TOKENIZERS,
    read_config,
    require_component,
)
from audiolm.checkpoints.strict_json import read_object, require_fields
from audiolm.checkpoints.tensors import file_names, read_bytes
from audiolm.config import DOMAINS, STAGES, USUAL_SAMPLING, SamplingConfig
from audiolm.errors import CheckpointError, ConfigError

FORMAT = 1
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
MAX_CARD_BYTES = 2**20
MAX_SUMMARY_CHARACTERS = 400


@dataclass(frozen=True)
class ComponentEntry:
    """One component as config.json lists it; `token_hash` is "" for what is no tokenizer."""

    config: dict[str, Any]
    files: dict[str, str]
    hash: str
    token_hash: str
    made_for: dict[str, str]


@dataclass(frozen=True)
class CheckpointInfo:
    """What is known of a checkpoint without reading weights; `sha256` is that of config.json, and so of the whole.

    `sampling` are its defaults by stage: its own, or the usual ones.
    """

    name: str
    domain: str
    folder: Path
    sha256: str
    components: dict[str, ComponentEntry]
    card: str
    summary: str
    sampling: Mapping[str, SamplingConfig]


def read_info(folder: Path | str) -> CheckpointInfo:
    """Reads config.json and the card, not the weights (their presence is checked).

    Raises CheckpointError, naming the file, for what is missing, foreign, of a later format or does not fit together.
    """
    folder = Path(folder)
    where = folder / CONFIG_FILE
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    value = read_object(where)
    check_format(where, value)
    fields = {"format": int, "name": str, "domain": str, "summary": str, "components": dict}
    require_fields(str(where), value, fields | ({"sampling": dict} if "sampling" in value else {}))
    check_labels(str(where), value["name"], value["domain"], value["summary"])
    entries = {name: _read_entry(where, name, entry) for name, entry in value["components"].items()}
    check_set(str(where), entries)
    for entry in entries.values():
        for file_name in entry.files:
            if not (folder / file_name).is_file():
                raise CheckpointError(f"{folder / file_name}: missing")
    return CheckpointInfo(
        name=value["name"],
        domain=value["domain"],
        folder=folder,
        sha256=hashlib.sha256(read_bytes(where)).hexdigest(),
        components=entries,
        card=read_card(folder / CARD_FILE),
        summary=value["summary"],
        sampling=check_sampling(f"{where}: sampling", value["sampling"]) if "sampling" in value else USUAL_SAMPLING,
    )


def _read_entry(where: Path, component: str, value: Any) -> ComponentEntry:
    require_component(f"{where}: ", component)
    fields: dict[str, type] = {"config": dict, "hash": str, "files": dict, "made_for": dict}
    if component in TOKENIZERS:
        fields["token_hash"] = str
    require_fields(f"{where}: {component}", value, fields)
    own = {key: value[key] for key in ("hash", "token_hash") if key in fields}
    require_hashes(f"{where}: {component}", own)
    if not value["files"] or list(value["files"]) != file_names(component, len(value["files"])):
        names = f"{component}.safetensors or {component}-00001-of-…, all of them in order"
        raise CheckpointError(f"{where}: files of {component} must be {names}, found {', '.join(value['files'])[:200]}")
    return ComponentEntry(
        config=value["config"],
        files=require_hashes(f"{where}: {component}: files", value["files"]),
        hash=own["hash"],
        token_hash=own.get("token_hash", ""),
        made_for=require_hashes(f"{where}: {component}: made_for", value["made_for"]),
    )


def read_card(path: Path) -> str:
    """Raises CheckpointError: missing, too large, empty, not UTF-8."""
    content = read_bytes(path, MAX_CARD_BYTES)
    check_card(str(path), content)
    return content.decode()


def check_card(where: str, content: bytes) -> None:
    if len(content) > MAX_CARD_BYTES:
        raise CheckpointError(f"{where}: a card of {len(content)} bytes, more than the {MAX_CARD_BYTES} allowed")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where}: the card is not UTF-8 text ({error})") from error
    if not text.strip():
        raise CheckpointError(f"{where}: the model card is empty")


def check_format(where: Path, value: dict[str, Any]) -> None:
    version = value.get("format")
    if type(version) is not int:
        raise CheckpointError(f"{where}: foreign: not the config of an AudioLM checkpoint (it states no format)")
    if version > FORMAT:
        raise CheckpointError(f"{where}: format {version}, this version of audiolm reads up to {FORMAT}; update it")
    if version < FORMAT:
        raise CheckpointError(f"{where}: format {version} does not exist")


def check_labels(where: str, name: str, domain: str, summary: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise CheckpointError(f"{where}: name must be 1-64 of a-z 0-9 . _ -, found {name!r}")
    if domain not in DOMAINS:
        raise CheckpointError(f"{where}: domain must be one of {', '.join(DOMAINS)}, found {domain!r}")
    if len(summary) > MAX_SUMMARY_CHARACTERS or not summary.replace("\n", "").isprintable() or not summary.strip():
        raise CheckpointError(f"{where}: summary must be 1-{MAX_SUMMARY_CHARACTERS} printable characters")


def check_sampling(where: str, value: Any) -> dict[str, SamplingConfig]:
    """{stage: {temperature, top_k, top_p}} of all three stages, read. Raises CheckpointError."""
    require_fields(where, value, dict.fromkeys(STAGES, dict))
    try:
        return {stage: SamplingConfig.from_dict(value[stage]) for stage in STAGES}
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def require_complete(where: str, components: Mapping[str, Any]) -> None:
    for component in components:
        require_component(f"{where}: ", component)
    if lacking := [name for name in REQUIRED if name not in components]:
        raise CheckpointError(f"{where}: lacks component(s) {', '.join(lacking)}")


def require_hashes(where: str, value: dict[str, Any]) -> dict[str, str]:
    for name, digest in value.items():
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise CheckpointError(f"{where}: {name!r} must be a SHA-256 in 64 lower-case hex digits, found {digest!r}")
    return value


def check_set(where: str, entries: Mapping[str, ComponentEntry]) -> None:
    """Raises CheckpointError unless the set is complete, made for each other, and of sizes that fit."""
    require_complete(where, entries)
    for component in (name for name in COMPONENTS if name in entries):  # stages before the detector made for them
        entry = entries[component]
        if set(entry.made_for) != set(MADE_FOR[component]):
            names = ", ".join(MADE_FOR[component]) or "nothing"
            raise CheckpointError(f"{where}: {component} must say which {names} it was made for; train it again")
        for other, digest in entry.made_for.items():
            present = entries[other]
            accepted = {present.hash} if component == "detector" else {present.hash, present.token_hash}
            if digest not in accepted:
                raise CheckpointError(
                    f"{where}: mixed set: {component} was made for {other} {digest[:12]}, "
                    f"this one is {present.hash[:12]}; train {component} again or restore that {other}"
                )
    _check_sizes(where, entries)


def _check_sizes(where: str, entries: Mapping[str, ComponentEntry]) -> None:
    """The stages' vocabularies must be those of the tokenizers."""
    try:
        configs = {name: read_config(name, entry.config) for name, entry in entries.items()}
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error
    codec: Any = configs["codec"]
    clusters = (configs["semantic"].num_clusters,)  # type: ignore[attr-defined]
    coarse = (codec.quantizer.codebook_size,) * codec.num_coarse_levels
    fine = (codec.quantizer.codebook_size,) * codec.num_fine_levels
    expected = {"semantic": (clusters, ()), "coarse": (coarse, clusters), "fine": (fine, coarse)}
    for stage, (levels, condition) in expected.items():
        config: Any = configs[f"stage_{stage}"]
        if config.stage != stage:
            raise CheckpointError(f"{where}: stage_{stage} holds a {config.stage} stage")
        found = config.levels[:1] if stage == "semantic" else config.levels  # there, run lengths may follow
        if (found, config.condition_levels) != (levels, condition):
            raise CheckpointError(
                f"{where}: stage_{stage} predicts {config.levels} given {config.condition_levels}, "
                f"the tokenizers have {levels} and {condition}"
            )
        if config.feature_dimension not in (0, codec.quantizer.dimension):
            raise CheckpointError(
                f"{where}: stage_{stage} reads code vectors of {config.feature_dimension} dimensions, "
                f"the codec's have {codec.quantizer.dimension}"
            )
    masked: Any = configs.get(MASKED)
    if masked is not None:
        stage: Any = configs["stage_fine"]
        sizes = [(each.levels, each.condition_levels, each.transformer.width) for each in (masked, stage)]
        if sizes[0] != sizes[1] or stage.layout != "depth":
            raise CheckpointError(f"{where}: {MASKED} is made for a fine stage {sizes[0]}, this one is {sizes[1]}")
