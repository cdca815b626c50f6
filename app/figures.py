"""Tiny token images while a run goes on. Pure."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from audiolm.config import FRAMES_PER_SEMANTIC
from audiolm.events import Chunk
from audiolm.inspection.figures import FAMILIES, shades

LIVE_ROWS_PER_LEVEL = {"semantic": 4, "coarse": 2, "fine": 1}
LIVE_GAP_ROWS = 3
LIVE_PROMPT_VEIL = (122, 128, 138, 40)


class LiveTokens:
    """The tokens of a run as they come, on one time axis of 50 Hz columns; the prompt's part stays empty."""

    def __init__(self, num_rows: int, prompt_frames: int, num_frames: int, num_levels: Mapping[str, int]) -> None:
        """`num_frames` are those of the whole; `num_levels` those of each stage, "semantic", "coarse" and "fine"."""
        self.prompt_frames, self.num_frames = prompt_frames, num_frames
        self._num_rows = num_rows
        self._lanes = {
            stage: np.full((num_rows, self.num_frames, levels), -1, dtype=np.int64)
            for stage, levels in num_levels.items()
        }
        self._semantic_end = [self.prompt_frames] * num_rows

    def add(self, chunk: Chunk) -> None:
        """Takes the tokens [N, steps, L] of a chunk; what lies beyond the axis is dropped."""
        tokens = chunk.tokens.detach().cpu().numpy()[: self._num_rows]
        if chunk.stage == "semantic":
            self._add_semantic(tokens)
        else:
            room = self._lanes[chunk.stage][:, chunk.start_step : chunk.start_step + tokens.shape[1]]
            room[:] = tokens[:, : room.shape[1]]

    def _add_semantic(self, tokens: np.ndarray) -> None:
        """A step is (id, run length - 1), or an id alone; every position of 25 Hz is FRAMES_PER_SEMANTIC columns."""
        lane = self._lanes["semantic"]
        for row, steps in enumerate(tokens):
            runs = steps[:, 1] + 1 if steps.shape[1] > 1 else np.ones(len(steps), dtype=np.int64)
            ids = np.repeat(steps[:, 0], runs * FRAMES_PER_SEMANTIC)[: self.num_frames - self._semantic_end[row]]
            lane[row, self._semantic_end[row] : self._semantic_end[row] + len(ids), 0] = ids
            self._semantic_end[row] += len(ids)

    def picture(self) -> np.ndarray:
        """RGBA [H, W, 4]: a block a row (semantic, coarse, fine under each other), a column a frame; what is not there
        yet is see-through, the prompt a gray veil."""
        gap = np.zeros((LIVE_GAP_ROWS, self.num_frames, 4), dtype=np.uint8)
        blocks: list[np.ndarray] = []
        for row in range(self._num_rows):
            blocks += [gap] * bool(row) + [self._painted(stage, row) for stage in self._lanes]
        picture = np.concatenate(blocks)
        veil = picture[:, : self.prompt_frames]
        veil[veil[..., 3] == 0] = LIVE_PROMPT_VEIL
        return picture

    def _painted(self, stage: str, row: int) -> np.ndarray:
        ids = self._lanes[stage][row].T
        painted = (FAMILIES[stage](shades(ids)) * 255).astype(np.uint8)
        painted[ids < 0] = 0
        return painted.repeat(LIVE_ROWS_PER_LEVEL[stage], axis=0)


def png(picture: np.ndarray) -> bytes:
    """RGBA [H, W, 4] uint8 -> PNG."""
    file = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(file, "PNG")
    return file.getvalue()
