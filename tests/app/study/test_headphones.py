from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from app.study import headphones
from audiolm.audio.loudness import integrated_loudness
from audiolm.config import SAMPLE_RATE_HZ

LOUDNESS_LUFS = -26.0


@pytest.fixture(scope="module")
def trials():
    return headphones.screening(3, LOUDNESS_LUFS)


def bursts(samples):
    period = round((headphones.BURST_S + headphones.GAP_S) * SAMPLE_RATE_HZ)
    size = round(headphones.BURST_S * SAMPLE_RATE_HZ)
    return [samples[start : start + size] / 32768 for start in range(0, len(samples), period)]


def band_db(sound):
    """Level of the 12 % around the tone, relative to all."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    frequency_hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    inside = np.abs(frequency_hz - headphones.CENTRE_HZ) <= headphones.HALF_WIDTH * headphones.CENTRE_HZ
    return 10 * np.log10(power[inside].sum() / power.sum() + 1e-12)


def test_the_tone_is_in_the_burst_that_is_told_and_only_between_the_ears(trials):
    for samples, expected in trials:
        for number, burst in enumerate(bursts(samples), 1):
            left, right = burst.T
            if str(number) == expected:
                assert band_db(left - right) > -1.0  # nothing but the band differs
                assert band_db(left) == pytest.approx(band_db(right), abs=0.1)
            else:
                assert np.array_equal(left, right)


def test_every_burst_is_right_equally_often_and_no_place_gives_it_away(trials):
    assert Counter(expected for _, expected in trials) == {"1": 2, "2": 2, "3": 2}
    other = [expected for _, expected in headphones.screening(4, LOUDNESS_LUFS)]
    assert other != [expected for _, expected in trials]


def test_all_trials_have_one_length_and_the_loudness_of_the_clips(trials):
    assert {samples.shape for samples, _ in trials} == {(round(4.0 * SAMPLE_RATE_HZ), 2)}
    for samples in (*(samples for samples, _ in trials), headphones.level_noise(LOUDNESS_LUFS)):
        lufs = float(integrated_loudness(torch.from_numpy(samples[None, :, 0] / 32768.0))[0])
        assert lufs == pytest.approx(LOUDNESS_LUFS, abs=0.1)
        assert np.abs(samples.astype(int)).max() < 32767


def test_the_same_seed_gives_the_same_sounds(trials):
    again = headphones.screening(3, LOUDNESS_LUFS)
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(trials, again, strict=True))


def test_a_file_holds_the_samples_and_nothing_else(trials):
    samples, _ = trials[0]
    file = headphones.wav(samples)
    assert len(file) == 44 + samples.nbytes
    read, rate_hz = soundfile.read(io.BytesIO(file), dtype="int16")
    assert rate_hz == SAMPLE_RATE_HZ
    assert np.array_equal(read, samples)
