from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from app import figures
from audiolm.detector import Verdict
from audiolm.events import Chunk, Continuation
from audiolm.streams import AcousticTokens, SemanticTokens, Waveform

LEVELS = {"semantic": 1, "coarse": 4, "fine": 8}


def verdict(**changes) -> Verdict:
    values = {
        "label": "generated",
        "probability": 0.9,
        "threshold": 0.5,
        "false_positive_rate": 0.01,
        "false_negative_rate": 0.02,
        "num_originals": 2000,
        "num_generated": 1800,
        "segment_times_s": (0.0, 0.25, 0.5),
        "segment_probabilities": (0.2, 0.9, 0.8),
    }
    return Verdict(**{**values, **changes})


def continuation(with_verdict: Verdict | None, num_levels: int = 12, prompt_s: float = 1.0) -> Continuation:
    generator = torch.Generator().manual_seed(0)
    return Continuation(
        Waveform(0.1 * torch.randn(32_000, generator=generator)),
        prompt_s,
        SemanticTokens(torch.randint(0, 500, (50,), generator=generator), 500),
        AcousticTokens(torch.randint(0, 1024, (100, num_levels), generator=generator), 1024),
        with_verdict,
        receipt=None,  # type: ignore[arg-type]  # no picture shows it
    )


@pytest.mark.parametrize(
    ("with_verdict", "num_levels", "count"),
    [(verdict(), 12, 5), (None, 12, 4), (verdict(segment_times_s=(), segment_probabilities=()), 12, 4), (None, 4, 3)],
)
def test_a_timeline_has_a_lane_for_all_there_is(with_verdict, num_levels, count):
    figure = figures.timeline_figure(continuation(with_verdict, num_levels), 4)
    assert len(figure.axes) == count


def test_all_lanes_share_the_time_axis_and_its_place():
    axes = figures.timeline_figure(continuation(verdict()), 4).axes
    assert {axis.get_xlim() for axis in axes} == {(0.0, 2.0)}
    assert len({(round(axis.get_position().x0, 6), round(axis.get_position().x1, 6)) for axis in axes}) == 1


def test_every_lane_has_a_gray_line_at_the_end_of_the_prompt():
    for axis in figures.timeline_figure(continuation(verdict()), 4).axes:
        marks = [line for line in axis.lines if line.get_color() == figures.PROMPT_LINE]
        assert [list(line.get_xdata()) for line in marks] == [[1.0, 1.0]]


def test_without_a_prompt_there_is_no_line():
    for axis in figures.timeline_figure(continuation(None, prompt_s=0.0), 4).axes:
        assert not [line for line in axis.lines if line.get_color() == figures.PROMPT_LINE]


def test_the_score_lane_starts_where_the_prompt_ends():
    axis = figures.timeline_figure(continuation(verdict()), 4).axes[-1]
    assert list(axis.lines[0].get_xdata()) == [1.0, 1.25, 1.5]


def test_pictures_are_png_files_without_background(tmp_path):
    waveform = continuation(None).waveform
    for figure in (
        figures.timeline_figure(continuation(verdict()), 4),
        figures.score_figure(waveform, verdict()),
        figures.ladder_figure({"original": waveform, "1 level": waveform}),
    ):
        with Image.open(figures.save(figure, tmp_path / "picture.png")) as image:
            assert image.format == "PNG"
            assert image.getpixel((0, 0))[3] == 0


def test_silence_can_be_drawn(tmp_path):
    figures.save(figures.score_figure(Waveform(torch.zeros(8_000)), verdict()), tmp_path / "silence.png")


def test_shades_are_the_ids_own_and_lie_within_the_colours():
    shades = figures.shades(np.arange(2**15))
    assert shades.min() >= 0.0
    assert shades.max() < 1.0
    assert len(np.unique(shades)) == 2**15
    assert np.abs(np.diff(shades)).min() > 0.3


def test_live_tokens_fill_their_lanes_as_they_come():
    live = figures.LiveTokens(2, 1.0, 1.0, LEVELS)
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
    live = figures.LiveTokens(1, 0.0, 1.0, LEVELS)
    live.add(Chunk("semantic", torch.tensor([[[7, 4], [9, 0]]]), 3))  # 5 positions and 1, each of two frames
    lane = live.picture()[0]
    assert (lane[:12, 3] == 255).all()
    assert (lane[12:, 3] == 0).all()
    assert (lane[0] == lane[9]).all()
    assert (lane[10] != lane[9]).any()


def test_live_tokens_beyond_the_end_are_dropped():
    live = figures.LiveTokens(1, 0.0, 0.2, LEVELS)
    live.add(Chunk("semantic", torch.tensor([[[7, 31]]]), 0))
    live.add(Chunk("fine", torch.zeros(1, 20, 8, dtype=torch.long), 0))
    live.add(Chunk("fine", torch.zeros(1, 20, 8, dtype=torch.long), 40))
    assert live.picture().shape[1] == 10


def test_live_pictures_are_png():
    picture = figures.LiveTokens(1, 0.5, 0.5, LEVELS).picture()
    with Image.open(io.BytesIO(figures.png(picture))) as image:
        assert image.size == (50, picture.shape[0])
