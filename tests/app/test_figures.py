"""Live tokens: pictures of a run as it goes."""

from __future__ import annotations

import io

import torch
from PIL import Image

from app import figures
from audiolm.events import Chunk

LEVELS = {"semantic": 1, "coarse": 4, "fine": 8}


def test_live_tokens_fill_their_lanes_as_they_come():
    live = figures.LiveTokens(2, 50, 100, LEVELS)
    before = live.picture()
    assert before.shape[1] == 100
    assert (before[:, :50, 3] == figures.LIVE_PROMPT_VEIL[3]).all()
    assert (before[:, 50:, 3] == 0).all()
    live.add(Chunk("coarse", torch.ones(2, 10, 4, dtype=torch.long), 50))
    after = live.picture()
    assert after.shape == before.shape
    start = figures.LIVE_ROWS_PER_LEVEL["semantic"]
    assert (after[start : start + 8, 50:60, 3] == 255).all()
    assert (after[:, 60:, 3] == 0).all()


def test_live_semantic_tokens_last_as_long_as_their_runs():
    live = figures.LiveTokens(1, 0, 50, LEVELS)
    live.add(Chunk("semantic", torch.tensor([[[7, 4], [9, 0]]]), 3))  # 5 positions and 1, each of two frames
    lane = live.picture()[0]
    assert (lane[:12, 3] == 255).all()
    assert (lane[12:, 3] == 0).all()
    assert (lane[0] == lane[9]).all()
    assert (lane[10] != lane[9]).any()


def test_live_tokens_beyond_the_end_are_dropped():
    live = figures.LiveTokens(1, 0, 10, LEVELS)
    live.add(Chunk("semantic", torch.tensor([[[7, 31]]]), 0))
    live.add(Chunk("fine", torch.zeros(1, 20, 8, dtype=torch.long), 0))
    live.add(Chunk("fine", torch.zeros(1, 20, 8, dtype=torch.long), 40))
    assert live.picture().shape[1] == 10


def test_live_pictures_are_png():
    picture = figures.LiveTokens(1, 25, 50, LEVELS).picture()
    with Image.open(io.BytesIO(figures.png(picture))) as image:
        assert image.size == (50, picture.shape[0])
