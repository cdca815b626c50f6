"""A corpus folder: all recordings as one raw PCM file plus a manifest, one JSON line an item.

`audio.int16` holds little-endian int16 mono 16 kHz samples of all items, end to end, so that a random crop is one
slice of a memory map. `manifest.jsonl` says where each item lies, who speaks or which piece is played, and its split.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import DataError

AUDIO_FILE = "audio.int16"
MANIFEST_FILE = "manifest.jsonl"
SPLITS = ("train", "valid", "test")
_PCM = np.dtype("<i2")
_FULL_SCALE = 32767.0
_UNKNOWN = (("transcript", None), ("sex", ""))


@dataclass(frozen=True)
class Item:
    """One recording: `start` and `length` are samples in the audio file; `group` is its speaker or piece.

    `sex` is the speaker's as the source names it, "F" or "M"; "" where it does not.
    """

    id: str
    start: int
    length: int
    group: str
    source: str
    licence: str
    split: str
    fluent: bool
    sha256: str
    transcript: str | None = None
    sex: str = ""

    @property
    def duration_s(self) -> float:
        return self.length / SAMPLE_RATE_HZ

    def to_dict(self) -> dict[str, Any]:
        """The manifest line; `transcript` and `sex` are left out where they are not known."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if (name, value) not in _UNKNOWN}


@dataclass(frozen=True)
class Crop:
    """Samples `offset` to `offset + length` of an item."""

    item: Item
    offset: int
    length: int


class _Sorted(Protocol):
    split: str
    fluent: bool
    group: str


AnyItem = TypeVar("AnyItem", bound=_Sorted)


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """Float samples [T] within [-1, 1] -> int16 [T]; values beyond are clipped."""
    return np.round(np.clip(samples, -1.0, 1.0) * _FULL_SCALE).astype(_PCM)


def pcm_hash(pcm: np.ndarray) -> str:
    """SHA-256 of the little-endian int16 samples [T]."""
    return hashlib.sha256(np.ascontiguousarray(pcm, dtype=_PCM).tobytes()).hexdigest()


def select_items(
    items: Sequence[AnyItem], split: str | None, fluent: bool | None, groups: Collection[str] | None
) -> list[AnyItem]:
    """Items with the given `split`, `fluent` mark and group; None leaves a criterion open.

    Raises: DataError when `split` is none of train, valid, test.
    """
    if split is not None and split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, found {split!r}")
    return [
        item
        for item in items
        if (split is None or item.split == split)
        and (fluent is None or item.fluent == fluent)
        and (groups is None or item.group in groups)
    ]


class Corpus:
    """Read access to a corpus folder; the audio is memory-mapped, so opening is cheap.

    Raises: DataError when the folder lacks a file, a manifest line is malformed, or an item lies beyond the audio.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in (AUDIO_FILE, MANIFEST_FILE):
            if not (self.folder / name).is_file():
                raise DataError(f"{self.folder}: no {name}; not a corpus folder")
        self.items = _read_manifest(self.folder / MANIFEST_FILE)
        if not self.items:
            raise DataError(f"{self.folder}: the manifest lists no items")
        self.pcm: np.ndarray = np.memmap(self.folder / AUDIO_FILE, dtype=_PCM, mode="r")
        for item in self.items:
            if item.split not in SPLITS:
                raise DataError(f"{self.folder}: item {item.id} has unknown split {item.split!r}")
            if item.start < 0 or item.length < 1 or item.start + item.length > len(self.pcm):
                raise DataError(
                    f"{self.folder}: item {item.id} lies beyond the {len(self.pcm)} samples of {AUDIO_FILE}"
                )

    def select(
        self, split: str | None = None, fluent: bool | None = None, groups: Collection[str] | None = None
    ) -> list[Item]:
        """Items that meet all the given criteria, in manifest order."""
        return select_items(self.items, split, fluent, groups)

    def waveform(self, item: Item) -> Tensor:
        """float32 [length] within [-1, 1]."""
        return self._read(item.start, item.length)

    def crops(self, items: Sequence[Item], length: int, count: int, generator: torch.Generator) -> Tensor:
        """[count, length] float32: what `draw` chooses, zero-padded at the end where an item is shorter."""
        return self.read(self.draw(items, length, count, generator), length)

    def draw(self, items: Sequence[Item], length: int, count: int, generator: torch.Generator) -> list[Crop]:
        """Random items, drawn in proportion to their length, at uniform positions; short ones as a whole.

        The same generator state gives the same crops.

        Raises: DataError when `items` is empty.
        """
        if not items:
            raise DataError("crops need at least one item, found none")
        weights = torch.tensor([item.length for item in items], dtype=torch.float64)
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        positions = torch.rand(count, generator=generator, dtype=torch.float64)
        drawn = []
        for index, position in zip(chosen.tolist(), positions.tolist(), strict=True):
            kept = min(length, items[index].length)
            drawn.append(Crop(items[index], int(position * (items[index].length - kept + 1)), kept))
        return drawn

    def read(self, crops: Sequence[Crop], length: int) -> Tensor:
        """[len(crops), length] float32, zero-padded at the end."""
        batch = torch.zeros(len(crops), length)
        for row, crop in zip(batch, crops, strict=True):
            row[: crop.length] = self._read(crop.item.start + crop.offset, crop.length)
        return batch

    def _read(self, start: int, length: int) -> Tensor:
        return torch.from_numpy(self.pcm[start : start + length].astype(np.float32) / _FULL_SCALE)


class CorpusWriter:
    """Writes a corpus folder item by item; use as a context manager.

    The manifest appears under its name only when the block ends without an error, so a half-written folder is never
    taken for a corpus.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.items: list[Item] = []
        self._num_samples = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
        self._audio = (self.folder / AUDIO_FILE).open("wb")
        return self

    def add(self, pcm: np.ndarray, *, id: str, group: str, split: str, source: str, licence: str, fluent: bool = True,
            transcript: str | None = None, sex: str = "", sha256: str | None = None) -> Item:  # fmt: skip
        """Appends int16 samples [T]; `sha256` saves hashing them again where it is known."""
        item = Item(
            id=id,
            start=self._num_samples,
            length=len(pcm),
            group=group,
            source=source,
            licence=licence,
            split=split,
            fluent=fluent,
            sha256=sha256 or pcm_hash(pcm),
            transcript=transcript,
            sex=sex,
        )
        self._audio.write(np.ascontiguousarray(pcm, dtype=_PCM).tobytes())
        self._num_samples += len(pcm)
        self.items.append(item)
        return item

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._audio.close()
        if kind is not None:
            return
        partial = self.folder / (MANIFEST_FILE + ".partial")
        with partial.open("w", encoding="utf-8") as lines:
            for item in self.items:
                lines.write(json.dumps(item.to_dict(), ensure_ascii=False) + "\n")
        partial.replace(self.folder / MANIFEST_FILE)


def summary(items: Sequence[Item]) -> str:
    """Hours, items and groups of each split, as one line."""
    parts = []
    for split in SPLITS:
        chosen = [item for item in items if item.split == split]
        hours = sum(item.duration_s for item in chosen) / 3600.0
        groups = len({item.group for item in chosen})
        parts.append(f"{split} {hours:.2f} h / {len(chosen)} items / {groups} groups")
    return ", ".join(parts)


def _read_manifest(path: Path) -> list[Item]:
    items = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                items.append(Item(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: {error}") from error
    return items
