"""Figures: every lane on one axis of seconds, in place, whatever there is of a clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from audiolm.detector import Verdict
from audiolm.inspection import figures
from audiolm.inspection.pianoroll import Roll
from audiolm.inspection.scores import TokenScores
from audiolm.inspection.seam import Seam
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform

VERDICT = Verdict("generated", 0.9, 0.5, 0.01, 0.02, 2000, 1800, "", "", (0.0, 0.25, 0.5), (0.2, 0.9, 0.8))
ROLL = Roll(np.array([0.1, 1.2]), np.array([0.6, 1.9]), np.array([60, 67]), np.array([30, 100]))
SEAM = Seam(0.3, 0.8, -1.25, True)


def lane(family: str, first_level: int, num_levels: int, rate_hz: int, scored: bool = False) -> TokenLane:
    generator = torch.Generator().manual_seed(first_level)
    shape = (2 * rate_hz, num_levels)
    ids = torch.randint(0, 500, shape, generator=generator)
    nats = torch.rand(shape, generator=generator) + 2.0
    nats[:3] = torch.nan
    rank, top = torch.zeros(shape, dtype=torch.int32), torch.zeros(*shape, 5)
    scores = TokenScores(nats, nats + 0.5, rank, top.int(), top) if scored else None
    return TokenLane(
        family, f"{family} {first_level}-{first_level + num_levels - 1}", rate_hz, first_level, ids, scores
    )


def timeline(scored: bool = False, **changes) -> Timeline:
    lanes = (lane("semantic", 0, 1, 25, scored), lane("coarse", 1, 4, 50, scored), lane("fine", 5, 8, 50, scored))
    generator = torch.Generator().manual_seed(0)
    whole = Timeline(
        Waveform(0.1 * torch.randn(32_000, generator=generator)), 1.0, True, lanes, VERDICT, 1.0, SEAM, ROLL
    )
    return replace(whole, **changes)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def prompt_lines(axis: Axes) -> list[list[float]]:
    return [list(line.get_xdata()) for line in axis.lines if line.get_color() == figures.PROMPT_LINE]


NO_SEGMENTS = replace(VERDICT, segment_times_s=(), segment_probabilities=())


@pytest.mark.parametrize(
    ("clip", "count"),
    [
        (timeline(scored=True), 8),
        (timeline(), 7),
        (timeline(roll=None), 6),
        (timeline(verdict=None), 6),
        (timeline(verdict=NO_SEGMENTS), 6),
        (timeline(lanes=()), 4),
    ],
)
def test_a_timeline_has_a_lane_for_all_there_is(clip, count):
    assert len(figures.timeline_figure(clip).axes) == count


def test_all_lanes_share_the_time_axis_and_its_place():
    axes = figures.timeline_figure(timeline(scored=True)).axes
    assert {axis.get_xlim() for axis in axes} == {(0.0, 2.0)}
    assert len({(round(axis.get_position().x0, 6), round(axis.get_position().x1, 6)) for axis in axes}) == 1


def test_tokens_lie_at_their_times():
    images = [image for axis in figures.timeline_figure(timeline()).axes for image in axis.images]
    assert {tuple(image.get_extent()[:2]) for image in images[1:]} == {(0.0, 2.0)}
    assert [image.get_array().shape for image in images[1:]] == [(1, 50), (4, 100), (8, 100)]


@pytest.mark.parametrize("time_s", [0.0, 0.5, 1.2345, 1.999])
def test_an_impulse_is_drawn_where_it_sounds(time_s):
    samples = torch.zeros(32_000)
    samples[round(time_s * 16_000)] = 1.0
    sound, mel = figures.timeline_figure(timeline(waveform=Waveform(samples), lanes=())).axes[:2]
    picture, (left, right, _, _) = mel.images[0].get_array(), mel.images[0].get_extent()
    drawn_s = left + (picture.sum(axis=0).argmax() + 0.5) * (right - left) / picture.shape[1]
    assert drawn_s == pytest.approx(time_s, abs=0.02)
    outline = sound.collections[0].get_paths()[0].vertices
    assert outline[outline[:, 1].argmax(), 0] == pytest.approx(time_s, abs=0.02)


def test_every_lane_has_a_gray_line_at_the_end_of_the_prompt_and_generated_sound_is_called_so():
    figure = figures.timeline_figure(timeline(scored=True))
    assert [prompt_lines(axis) for axis in figure.axes] == [[[1.0, 1.0]]] * 8
    assert {"prompt", "generated"} <= set(texts(figure))


def test_without_a_prompt_there_is_no_line_but_generated_sound_is_still_called_so():
    figure = figures.timeline_figure(timeline(prompt_s=0.0, seam=None))
    assert [prompt_lines(axis) for axis in figure.axes] == [[]] * 7
    assert "generated" in texts(figure)
    recording = figures.timeline_figure(timeline(prompt_s=0.0, seam=None, generated=False))
    assert "generated" not in texts(recording)


def test_the_score_lane_starts_where_the_verdict_does():
    axis = figures.timeline_figure(timeline()).axes[-1]
    assert list(axis.lines[0].get_xdata()) == [1.0, 1.25, 1.5]


def test_the_seam_is_told_in_numbers_and_what_a_lane_is_in_words():
    whole = timeline()
    noted = replace(whole, lanes=(replace(whole.lanes[0], label="heard", note="an estimate"), *whole.lanes[1:]))
    written = texts(figures.timeline_figure(noted))
    assert "join: flux above 80 % of the prompt's own, level -1.2 dB" in written
    assert "heard: an estimate" in written


def test_ids_that_are_no_tokens_stay_empty():
    whole = timeline()
    ids = whole.lanes[2].ids.clone()
    ids[60:] = -1
    image = figures.timeline_figure(replace(whole, lanes=(replace(whole.lanes[2], ids=ids),))).axes[3].images[0]
    assert image.get_array().mask[:, 60:].all()
    assert not image.get_array().mask[:, :60].any()


def test_surprisal_is_drawn_once_a_family_and_not_where_nothing_was_asked():
    whole = timeline(scored=True)
    again = replace(whole.lanes[0], label="semantic, heard again")
    axis = figures.timeline_figure(replace(whole, lanes=(*whole.lanes, again))).axes[7]
    solid = [line for line in axis.lines if line.get_linestyle() == "-" and line.get_color() != figures.PROMPT_LINE]
    assert [line.get_color() for line in solid] == list(figures.FAMILY_LINES.values())
    level = np.full((50, 2), np.nan)
    level[30:, 0] = 2.0
    smoothed = figures._smoothed(level, 5)
    assert np.isnan(smoothed[:27]).all()
    assert smoothed[30:] == pytest.approx(2.0)


def test_a_verdict_is_drawn_with_what_spoke_for_it_and_its_boundary_through_all():
    waveform, saliency = timeline().waveform, torch.linspace(-1, 1, 64)[:, None].expand(64, 257)
    spliced = replace(VERDICT, boundary_s=1.2)
    figure = figures.score_figure(waveform, spliced, saliency)
    assert len(figure.axes) == 3
    for axis in figure.axes:
        drawn = [list(line.get_xdata()) for line in axis.lines if line.get_color() == figures.BOUNDARY]
        assert drawn == [[1.2, 1.2]]
    assert "likely boundary 1.2 s" in texts(figure)
    overlay = figure.axes[1].images[1]
    assert tuple(overlay.get_extent()) == (0.0, 2.0, 0.0, figures.MEL_BANDS)
    assert len(figures.score_figure(waveform, VERDICT, saliency).axes[0].lines) == 0
    assert len(figures.score_figure(waveform, NO_SEGMENTS).axes) == 1


def test_pictures_have_no_background_and_the_kind_their_suffix_says(tmp_path):
    waveform = timeline().waveform
    for figure in (
        figures.timeline_figure(timeline(scored=True)),
        figures.score_figure(waveform, VERDICT),
        figures.ladder_figure({"original": waveform, "1 level": waveform}),
    ):
        with Image.open(figures.save(figure, tmp_path / "picture.png")) as image:
            assert image.format == "PNG"
            assert image.getpixel((0, 0))[3] == 0
    assert figures.save(figure, tmp_path / "picture.pdf").read_bytes().startswith(b"%PDF")
    first = figures.save(figure, tmp_path / "picture.svg").read_text()
    assert "<svg" in first
    assert figures.save(figure, tmp_path / "again.svg").read_text() == first


@pytest.mark.parametrize("num_samples", [320, 8_000])
def test_short_silence_can_be_drawn(tmp_path, num_samples):
    silence = Waveform(torch.zeros(num_samples))
    nothing = Roll(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    figures.save(figures.score_figure(silence, VERDICT), tmp_path / "score.png")
    figures.save(figures.timeline_figure(Timeline(silence, 0.0, False, (), roll=nothing)), tmp_path / "timeline.png")


def test_shades_are_the_ids_own_and_lie_within_the_colours():
    shades = figures.shades(np.arange(2**15))
    assert shades.min() >= 0.0
    assert shades.max() < 1.0
    assert len(np.unique(shades)) == 2**15
    assert np.abs(np.diff(shades)).min() > 0.3
