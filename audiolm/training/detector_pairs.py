"""The folder of pairs that the detector learns from: generated clips and originals of equal length.

meta.json, and for each split `generated.int16` and `original.int16` (raw little-endian mono 16 kHz, all rows end to
end) with `rows.jsonl`, one line a pair.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.errors import DataError

SPLITS = ("train", "valid", "test")
META_FILE, ROWS_FILE = "meta.json", "rows.jsonl"
KINDS = ("generated", "original")


class PairWriter:
    """Adds pairs to one split of a folder. Raises DataError for a folder of another checkpoint or length."""

    def __init__(self, folder: Path, split: str, meta: dict[str, Any]) -> None:
        self.folder, self.length = folder / split, meta["length"]
        self.folder.mkdir(parents=True, exist_ok=True)
        if (folder / META_FILE).is_file():
            if json.loads((folder / META_FILE).read_text(encoding="utf-8")) != meta:
                raise DataError(f"{folder} holds pairs of another checkpoint or length; choose another folder")
        else:
            (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        rows = self.folder / ROWS_FILE
        self.num_rows = len(rows.read_text(encoding="utf-8").splitlines()) if rows.is_file() else 0
        for name in KINDS:  # a run that was killed may have left audio without its line
            with open(self.folder / f"{name}.int16", "ab") as file:
                file.truncate(2 * self.length * self.num_rows)

    def add(self, generated: Tensor, original: Tensor, notes: list[dict[str, Any]]) -> None:
        for name, rows in zip(KINDS, (generated, original), strict=True):
            with open(self.folder / f"{name}.int16", "ab") as file:
                file.write((rows.clamp(-1.0, 1.0) * 32767.0).round().numpy().astype("<i2").tobytes())
        with open(self.folder / ROWS_FILE, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(note, ensure_ascii=False) + "\n" for note in notes)
        self.num_rows += len(notes)


class PairSet:
    """Read access to one split: `num_rows` pairs of `length` samples, read as they are asked for.

    Raises DataError for a missing or damaged folder.
    """

    def __init__(self, folder: Path, split: str) -> None:
        try:
            self.meta: dict[str, Any] = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
            lines = (folder / split / ROWS_FILE).read_text(encoding="utf-8").splitlines()
            self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
            if not self.rows:
                raise ValueError("it has no pairs")
            self.num_rows, self.length = len(self.rows), int(self.meta["length"])
            self._samples = [
                np.memmap(folder / split / f"{kind}.int16", "<i2", "r", shape=(self.num_rows, self.length))
                for kind in KINDS
            ]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder}: split {split}: not a folder of detector data ({error})") from error

    def pair(self, row: int, start: int, length: int) -> Tensor:
        """float32 [2, length]: generated, then how the recording really went on."""
        samples = np.stack([kind[row, start : start + length] for kind in self._samples])
        return torch.from_numpy(samples.astype(np.float32) / 32767.0)
