"""From what a person types (an embedded name, a folder, a Hub id) to a checkpoint."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import torch

from audiolm.checkpoints import embedded
from audiolm.checkpoints.format import CheckpointInfo, ModelSet, load_checkpoint, read_info
from audiolm.config import DOMAINS
from audiolm.errors import CheckpointError

logger = logging.getLogger(__name__)


def available(assets: Path | None = None) -> list[CheckpointInfo]:
    """The embedded checkpoints, speech first, then by name. One that cannot be read is logged and left out."""
    infos = []
    for name in embedded.names(assets):
        try:
            infos.append(read_info(embedded.folder_of(name, assets)))
        except CheckpointError as error:
            logger.warning("embedded checkpoint left out: %s", error)
    return sorted(infos, key=lambda info: (DOMAINS.index(info.domain), info.name))


def resolve(source: str, revision: str | None = None, assets: Path | None = None) -> Path:
    """The folder of an embedded name, of a path, or of a Hub id "owner/name" (downloaded, or cached from before).

    A folder goes before a Hub id of the same spelling, unless a revision (branch, tag or commit) is given.
    Raises CheckpointError where nothing answers to `source`, or the Hub's copy cannot be had.
    """
    if revision is None:
        if source in embedded.names(assets):
            return embedded.folder_of(source, assets)
        if source and Path(source).expanduser().is_dir():
            return Path(source).expanduser()
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source, re.ASCII):
        from audiolm.checkpoints import hub  # huggingface_hub is needed by nothing else

        return hub.fetch(source, revision)
    if revision is not None:
        raise CheckpointError(f"{source!r}: a revision goes with a Hub id (owner/name) only")
    known = ", ".join(embedded.names(assets)) or "none here"
    raise CheckpointError(f"{source!r} is no embedded checkpoint ({known}), no folder and no Hub id (owner/name)")


def load(
    source: str, revision: str | None = None, device: str | torch.device = "cpu", assets: Path | None = None
) -> ModelSet:
    """`resolve`, then `load_checkpoint` with every file's hash verified. Raises CheckpointError."""
    return load_checkpoint(resolve(source, revision, assets), device)
