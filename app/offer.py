"""The checkpoints that this process offers, and the few that it keeps in memory."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from app.schemas import CheckpointChoice, sampling_fields
from app.settings import Settings
from audiolm.checkpoints import CheckpointInfo, load_checkpoint, read_info, registry
from audiolm.checkpoints.components import MASKED
from audiolm.config import DOMAINS, USUAL_SAMPLING
from audiolm.errors import AudioLMError, CheckpointError, RequestError
from audiolm.pipeline import Pipeline

MAX_LOADED = 4  # the least recently used one goes first

logger = logging.getLogger(__name__)


class Offer:
    """Which checkpoints there are, by the names that `CheckpointChoice` calls them."""

    def __init__(self, settings: Settings, device: torch.device | None = None) -> None:
        """Reads the offered checkpoints' configurations (no weights). A broken one is skipped and logged.

        Without a device, as in the application's own process, nothing can be loaded.
        """
        self._settings = settings
        self._device = device
        self._loading = threading.Lock()  # no checkpoint twice
        self._pipelines: OrderedDict[tuple[str, str | None], tuple[CheckpointInfo, Pipeline]] = OrderedDict()
        self._offered = _offered(settings.checkpoints)

    def infos(self) -> list[CheckpointInfo]:
        """In the order of the picker."""
        return list(self._offered.values())

    def names(self) -> list[str]:
        return list(self._offered)

    def describe(self, choice: CheckpointChoice) -> CheckpointInfo:
        """Configuration and card of a checkpoint, without its weights; a Hub one is downloaded and kept.

        Raises CheckpointError, or RequestError where visitors may not name checkpoints that are not offered.
        """
        folder = self._folder(choice)
        with _without_place(folder):
            return read_info(folder)

    def sampling(self, name: str | None) -> dict[str, float]:
        """A checkpoint's own sampling as fields; the usual one where it cannot be read (a run says why)."""
        try:
            return sampling_fields(self.describe(CheckpointChoice.parse(name)).sampling)
        except AudioLMError:
            return sampling_fields(USUAL_SAMPLING)

    def has_masked_decoder(self, name: str | None) -> bool:
        """Whether a checkpoint's fine stage can also work in parallel."""
        try:
            return MASKED in self.describe(CheckpointChoice.parse(name)).components
        except AudioLMError:
            return False

    def fitting(self, domain: str, current: str | None) -> str | None:
        """`current` where it is of the domain or unknown here, else the first offered checkpoint of the domain."""
        if current not in self._offered or self._offered[current].domain == domain:
            return current
        return next((name for name, info in self._offered.items() if info.domain == domain), current)

    def load(self, choice: CheckpointChoice) -> tuple[CheckpointInfo, Pipeline]:
        """Onto the device; one whose folder changed is loaded anew. Thread-safe.

        Raises as `describe`; DeviceMemoryError.
        """
        with self._loading:
            return self._load((choice.source, choice.revision), choice)

    def _load(self, key: tuple[str, str | None], choice: CheckpointChoice) -> tuple[CheckpointInfo, Pipeline]:
        if key in self._pipelines:
            info, _ = self._pipelines[key]
            with _without_place(info.folder):
                changed = read_info(info.folder).sha256 != info.sha256
            if changed:
                del self._pipelines[key]
        if key not in self._pipelines:
            folder = self._folder(choice)
            with _without_place(folder):
                models = load_checkpoint(folder, device=str(self._device))
            self._pipelines[key] = (models.info, Pipeline(models, self._settings.watermark))
            while len(self._pipelines) > MAX_LOADED:
                self._pipelines.popitem(last=False)
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def loaded(self) -> list[Pipeline]:
        """Those in memory."""
        return [pipeline for _, pipeline in list(self._pipelines.values())]

    def _folder(self, choice: CheckpointChoice) -> Path:
        if choice.text in self._offered:
            return self._offered[choice.text].folder
        if not self._settings.other_checkpoints:
            names = ", ".join(self._offered) or "none"
            raise RequestError(f"checkpoint must be one of those offered here ({names}), found {choice.source[:80]!r}")
        return registry.resolve(choice.source, choice.revision)


@contextmanager
def _without_place(folder: Path) -> Iterator[None]:
    """What is wrong with a checkpoint, told to visitors: which file, and not where on this machine it lies."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(f"{folder.parent}{os.sep}", "")) from error


def _offered(sources: tuple[str, ...]) -> dict[str, CheckpointInfo]:
    """Name -> checkpoint. Two checkpoints of one name: the later one is offered under its folder."""
    found: list[CheckpointInfo] = [] if sources else registry.available()
    for source in sources:
        for folder in _folders(source):
            try:
                found.append(read_info(folder))
            except AudioLMError as error:
                logger.warning("checkpoint %s is not offered: %s", folder, error)
    offered: dict[str, CheckpointInfo] = {}
    for info in sorted(found, key=lambda info: DOMAINS.index(info.domain)):
        offered[str(info.folder) if info.name in offered else info.name] = info
    return offered


def _folders(source: str) -> list[Path]:
    """One checkpoint, or every one in a folder of several."""
    path = Path(source)
    if path.is_dir() and not (path / "config.json").exists():
        inside = sorted(folder for folder in path.iterdir() if (folder / "config.json").exists())
        if inside:
            return inside
    name, _, revision = source.partition("@")
    try:
        return [path if path.is_dir() else registry.resolve(name, revision or None)]
    except CheckpointError as error:
        logger.warning("checkpoint %s is not offered: %s", source, error)
        return []
