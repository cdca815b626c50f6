"""What the detector's branches read of the clips beside them, kept: listening to them again costs more than training.

In each split's folder of `audiolm.data.pairs`: `views.json` (sizes of a frame, version of the listener), `views.jsonl`,
one line a view, and frames end to end in `mels.float16` (log-mel, 128 a second) and `figures.float16`
(`audiolm.checkpoints.listener`, 25 a second).
A line has `kind` (generated, original, spliced, unpaired), `row` in the pairs or the unpaired originals, `turn` (views
of one turn and row differ in kind alone), `group`, `length` in samples, `join` where a spliced clip becomes generated,
and `change`: what was done to the sound, "" for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ, SAMPLES_PER_SEMANTIC
from audiolm.data.json_lines import add_lines, mended_lines, read_lines
from audiolm.errors import DataError

VIEWS_FILE, META_FILE = "views.jsonl", "views.json"
MEL_HOP_SAMPLES = 125
STEP_SAMPLES = SAMPLE_RATE_HZ  # places where a view can be cut: whole frames of both kinds


def num_mel_frames(num_samples: int) -> int:
    return num_samples // MEL_HOP_SAMPLES + 1


def num_figure_frames(num_samples: int) -> int:
    return num_samples // SAMPLES_PER_SEMANTIC


class ViewWriter:
    """Adds views to one split of a folder of pairs. Raises DataError where its views are of another kind."""

    def __init__(self, folder: Path, split: str, num_mels: int, num_figures: int, listener_version: int) -> None:
        self.folder = folder / split
        kind = {"num_mels": num_mels, "num_figures": num_figures, "listener_version": listener_version}
        meta, path = self.folder / META_FILE, self.folder / VIEWS_FILE
        known = json.loads(meta.read_text(encoding="utf-8")) if meta.is_file() else None
        if known != kind and (known is not None or path.is_file()):
            raise DataError(f"{self.folder} has views of another kind than {kind}; delete its views.* to begin again")
        meta.write_text(json.dumps(kind) + "\n", encoding="utf-8")
        self.notes = mended_lines(path)
        lengths = [note["length"] for note in self.notes]
        for name, count, size in (
            ("mels", num_mel_frames, num_mels),
            ("figures", num_figure_frames, num_figures),
        ):  # a run that was killed may have left frames without their line
            with open(self.folder / f"{name}.float16", "ab") as file:
                file.truncate(2 * size * sum(map(count, lengths)))

    def add(self, mels: Tensor, figures: Tensor, notes: Sequence[dict[str, Any]]) -> None:
        """mels [B, mels, M] and figures [B, D, S] of clips of one length."""
        for name, frames in (("mels", mels), ("figures", figures)):
            with open(self.folder / f"{name}.float16", "ab") as file:
                file.write(frames.mT.half().contiguous().cpu().numpy().astype("<f2").tobytes())
        add_lines(self.folder / VIEWS_FILE, notes)
        self.notes += notes


class ViewSet:
    """Read access to the views of one split, frames read as they are asked for.

    Raises DataError for a missing or damaged folder.
    """

    def __init__(self, folder: Path, split: str) -> None:
        try:
            self.notes = read_lines(folder / split / VIEWS_FILE)
            if not self.notes:
                raise ValueError("it has no views")
            kind = json.loads((folder / split / META_FILE).read_text(encoding="utf-8"))
            self.num_mels, self.num_figures = int(kind["num_mels"]), int(kind["num_figures"])
            self.listener_version = int(kind["listener_version"])
            lengths = [int(note["length"]) for note in self.notes]
            self._mel_starts = [0, *accumulate(map(num_mel_frames, lengths))]
            self._figure_starts = [0, *accumulate(map(num_figure_frames, lengths))]
            self._mels = _frames(folder / split / "mels.float16", self._mel_starts[-1], self.num_mels)
            self._figures = _frames(folder / split / "figures.float16", self._figure_starts[-1], self.num_figures)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{folder}: split {split}: no usable views; make them anew ({error})") from error

    def crop(self, index: int, start: int, length: int) -> tuple[Tensor, Tensor]:
        """float32 (mels [mels, M], figures [D, S]) of `length` samples of a view from `start`, whole `STEP_SAMPLES`."""
        first = self._mel_starts[index] + start // MEL_HOP_SAMPLES
        mels = self._mels[first : first + num_mel_frames(length)]
        first = self._figure_starts[index] + start // SAMPLES_PER_SEMANTIC
        figures = self._figures[first : first + num_figure_frames(length)]
        return tuple(torch.from_numpy(frames.astype(np.float32)).mT for frames in (mels, figures))


def _frames(path: Path, count: int, size: int) -> np.ndarray:
    return np.memmap(path, "<f2", "r", shape=(count, size))
