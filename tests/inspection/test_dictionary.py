"""Dictionary entries of tokens whose places and sounds are known."""

from __future__ import annotations

import math

import pytest
import torch

from audiolm.errors import RequestError
from audiolm.inspection.dictionary import Occurrence, entry, entry_in
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform

RATE = 16_000


def tone(hertz: float, seconds: float) -> torch.Tensor:
    return 0.1 * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def test_counts_runs_neighbours_and_places_are_those_of_the_clips():
    ids = [torch.tensor([7, 7, 3, 7, 5, 3, 7]), torch.tensor([-1, 7, 7, 3])]
    clips = [Waveform(torch.zeros(7 * 640)), Waveform(torch.zeros(4 * 640))]
    found = entry(ids, clips, 7, "semantic", 0)
    assert (found.count, found.total, found.share) == (6, 10, 0.6)
    assert found.durations == ((1, 2), (2, 2))
    assert found.mean_duration_s == pytest.approx(1.5 / 25)
    assert found.followers == ((3, 2), (5, 1))
    assert found.preceders == ((3, 2),)
    assert found.occurrences[0] == Occurrence(0, 0.0, 0.08)
    assert found.occurrences[-1] == Occurrence(1, 0.04, 0.12)


def test_at_most_eight_neighbours_are_named_the_most_frequent_first():
    ids = torch.tensor([value for follower in [*range(1, 12), 11, 11] for value in (0, follower)])
    found = entry([ids], [Waveform(torch.zeros(len(ids) * 320))], 0, "coarse", 1)
    assert len(found.followers) == 8
    assert found.followers[0] == (11, 3)


def test_profiles_are_those_of_the_sound_where_the_token_is():
    clip = Waveform(torch.cat([tone(440.0, 1.0), tone(261.63, 1.0)]))
    ids = torch.tensor([1] * 50 + [2] * 50)
    high, low = (entry([ids], [clip], token, "coarse", 1) for token in (1, 2))
    assert high.pitch_classes.argmax() == 9
    assert low.pitch_classes.argmax() == 0
    assert high.pitch_classes.sum() == pytest.approx(1.0, abs=1e-4)
    assert high.mel_profile.shape == (80,)
    assert high.mel_profile.argmax() > low.mel_profile.argmax()


def test_pitch_classes_of_many_stretches_are_those_of_the_whole_spectrogram():
    clip = torch.randn(10 * RATE, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(500) % 3
    found = entry([ids], [Waveform(clip)], 1, "coarse", 1).pitch_classes
    spectrum = torch.stft(clip, 4096, 160, window=torch.hann_window(4096), pad_mode="constant", return_complex=True)
    power = spectrum[:, :1000][:, (ids == 1).repeat_interleave(2)].abs().square().sum(dim=1)
    expected = torch.zeros(12)
    for index in range(1, 2049):
        hertz = index * RATE / 4096
        if 55.0 <= hertz <= 2100.0:
            expected[round(69 + 12 * math.log2(hertz / 440.0)) % 12] += power[index]
    assert torch.allclose(found, expected / expected.sum(), atol=1e-5)


def test_what_is_no_token_is_refused():
    with pytest.raises(RequestError, match="at least 0, found -1"):
        entry([torch.tensor([-1, 2])], [Waveform(torch.zeros(640))], -1, "coarse", 1)


def test_an_id_that_never_occurs_has_an_empty_entry():
    found = entry([torch.tensor([1, 2])], [Waveform(torch.zeros(640))], 9, "fine", 5)
    assert (found.count, found.share, found.mean_duration_s, found.occurrences) == (0, 0.0, 0.0, ())
    assert found.mel_profile is found.pitch_classes is None


def test_timelines_are_read_at_the_level_as_shown():
    waveform = Waveform(torch.zeros(640))
    fine = TokenLane("fine", "fine 5-6", 50, 5, torch.tensor([[1, 2], [3, 4]]))
    timelines = [Timeline(waveform, 0.0, False, ()), Timeline(waveform, 0.0, False, (fine,))]
    found = entry_in(timelines, 4, "fine", 6)
    assert found.occurrences == (Occurrence(1, 0.02, 0.04),)
    with pytest.raises(RequestError, match="level 7"):
        entry_in(timelines, 4, "fine", 7)
