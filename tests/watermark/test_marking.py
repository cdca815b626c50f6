from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from audiolm.streams import Waveform
from audiolm.watermark import check, mark
from audiolm.watermark.marking import FADE_SAMPLES, MIN_S, RATE_HZ, THRESHOLD
from tests.watermark.material import voice

CLIP = voice(5.0)
MARKED = mark(CLIP)


def band_energy(samples: torch.Tensor, low_hz: float, high_hz: float) -> float:
    spectrum = torch.fft.rfft(samples.double()).abs().square()
    frequencies = torch.arange(spectrum.shape[0]) * 8000.0 / (spectrum.shape[0] - 1)
    return float(spectrum[(frequencies >= low_hz) & (frequencies < high_hz)].sum())


def test_a_mark_is_found_and_its_absence_too():
    assert not check(CLIP).found
    assert check(CLIP).confidence < 0.5
    assert check(MARKED).found
    assert check(MARKED).confidence >= THRESHOLD


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 48_000])
def test_rate_and_length_stay_and_the_mark_is_found_at_any_rate(rate_hz):
    clip = voice(3.03, rate_hz=rate_hz)
    marked = mark(clip)
    assert marked.sample_rate_hz == rate_hz
    assert marked.samples.shape == clip.samples.shape
    assert check(marked).found


def test_the_change_is_small_and_below_2_khz():
    change = MARKED.samples - CLIP.samples
    assert band_energy(change, 2200, 8000) < 1e-3 * band_energy(change, 0, 2200)
    assert 0 < change.square().sum() < 0.1 * CLIP.samples.square().sum()


def test_the_change_fades_in_and_out():
    change = (MARKED.samples - CLIP.samples).abs()
    inside = change[FADE_SAMPLES:-FADE_SAMPLES].max()
    assert max(change[:8].max(), change[-8:].max()) < 0.05 * inside


def test_a_part_that_is_marked_is_found_in_a_longer_recording():
    assert check(Waveform(torch.cat([voice(6.0, seed=1).samples, MARKED.samples, voice(5.0, seed=2).samples]))).found


def test_long_recordings_are_read_in_pieces_without_a_seam(monkeypatch):
    long = Waveform(torch.cat([CLIP.samples, MARKED.samples]))
    whole = check(long)
    monkeypatch.setattr("audiolm.watermark.marking._PIECE_SAMPLES", RATE_HZ)
    assert check(long) == whole


def test_the_same_input_gives_the_same_output_again():
    assert torch.equal(mark(CLIP).samples, mark(CLIP).samples)
    assert check(MARKED) == check(MARKED)


def test_many_threads_at_once_do_not_disturb_each_other():
    """But for the last bits, which follow how many cores a thread is given."""
    with ThreadPoolExecutor(4) as threads:
        again = list(threads.map(mark, [CLIP] * 4))
        results = list(threads.map(check, [MARKED] * 4))
    for one in again:
        torch.testing.assert_close(one.samples, MARKED.samples, rtol=0.0, atol=1e-5)
    assert all(one.confidence == pytest.approx(check(MARKED).confidence, abs=0.01) for one in results)


def test_the_waveform_that_is_given_is_not_changed():
    before = CLIP.samples.clone()
    mark(CLIP)
    assert torch.equal(CLIP.samples, before)


def test_marked_sound_stays_within_full_scale():
    loud = Waveform(CLIP.samples / CLIP.samples.abs().max())
    assert mark(loud).samples.abs().max() <= 1.0


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (Waveform(torch.zeros(0)), "too short: 0.00 s"),
        (voice(MIN_S - 0.01), "too short: 1.99 s, at least 2 s"),
        (Waveform(torch.zeros(48_000)), "near silence: 0.00 s of sound, at least 2 s"),
        (Waveform(torch.full((48_000,), math.nan)), "not finite"),
        (Waveform(torch.full((48_000,), math.inf)), "not finite"),
    ],
)
def test_what_cannot_carry_a_mark_stays_as_it_is_and_gives_no_number(clip, reason):
    assert mark(clip) is clip
    result = check(clip)
    assert (result.found, result.confidence) == (False, 0.0)
    assert reason in result.reason


def test_gradients_stay_on_for_the_caller():
    mark(CLIP)
    check(CLIP)
    assert torch.is_grad_enabled()
