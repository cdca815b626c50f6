"""What a degradation promises: the same samples every time, its rate, level and length."""

from __future__ import annotations

import builtins
import io
from fractions import Fraction

import pytest
import soundfile
import torch
from scipy.signal import correlate

from audiolm.errors import EvaluationError
from audiolm.evaluation.degradations import DEGRADATIONS

T = 16_000
CHANGES_LENGTH = {"trim 0.3 s": T - 4_800, "speed -5 %": -(-T * 100 // 95), "speed +5 %": -(-T * 100 // 105)}


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    """Bursts of low-passed noise, peak 0.5."""
    drawn = torch.randn(T, generator=torch.Generator().manual_seed(3)).cumsum(dim=0).diff(n=1, prepend=torch.zeros(1))
    smooth = torch.nn.functional.avg_pool1d(drawn[None], 9, 1, 4)[0] * (torch.arange(T) % 4_000 < 3_000)
    return 0.5 * smooth / smooth.abs().max()


@pytest.fixture(autouse=True)
def _with_av(request):
    if "aac" in request.node.name and "missing" not in request.node.name:
        pytest.importorskip("av")


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_gives_the_same_samples_twice_and_leaves_its_input_alone(name, sound):
    before = sound.clone()
    once, twice = DEGRADATIONS[name](sound), DEGRADATIONS[name](sound)
    assert torch.equal(once, twice)
    assert torch.equal(sound, before)
    assert once.dtype == torch.float32
    assert bool(torch.isfinite(once).all())
    assert once.shape == (CHANGES_LENGTH.get(name, T),)
    assert (name == "none") == torch.equal(once[:T], sound[: once.shape[0]])


@pytest.mark.parametrize("name", [name for name in DEGRADATIONS if name not in CHANGES_LENGTH])
def test_what_keeps_the_length_keeps_the_time_too(name, sound):
    there = correlate(DEGRADATIONS[name](sound).numpy(), sound.numpy(), mode="same")
    assert abs(int(there.argmax()) - T // 2) <= 1


@pytest.mark.parametrize(("name", "kbps"), [("mp3 64k", 64), ("mp3 128k", 128), ("opus 24k", 24)])
def test_files_have_the_bit_rate_of_their_name(name, kbps, monkeypatch):
    written = []

    def remember(file: io.BytesIO, *args: object, **options: object) -> None:
        write(file, *args, **options)
        written.append(8 * len(file.getvalue()) / 10 / 1000)

    write = soundfile.write
    monkeypatch.setattr(soundfile, "write", remember)
    DEGRADATIONS[name](0.1 * torch.randn(10 * T, generator=torch.Generator().manual_seed(0)))
    assert written == [pytest.approx(kbps, rel=0.15)]  # Opus varies about it


@pytest.mark.parametrize("snr_db", [20, 30])
def test_noise_lies_as_far_below_as_it_says(snr_db, sound):
    added = DEGRADATIONS[f"noise {snr_db} dB"](sound) - sound
    ratio_db = 10 * torch.log10(sound.square().mean() / added.square().mean())
    assert float(ratio_db) == pytest.approx(snr_db, abs=0.2)


@pytest.mark.parametrize(("name", "edge_hz"), [("resample 8 kHz", 4_000), ("resample 11 kHz", 5_513)])
def test_resampling_leaves_nothing_above_half_the_lower_rate(name, edge_hz, sound):
    power = torch.fft.rfft(DEGRADATIONS[name](sound)).abs().square()
    frequency_hz = torch.fft.rfftfreq(T, 1 / T)
    assert float(power[frequency_hz > edge_hz + 100].sum() / power.sum()) < 1e-6


def test_gain_is_hard_clipped_at_full_scale(sound):
    loud = DEGRADATIONS["gain +12 dB"](sound)
    assert float(loud.abs().max()) == 1.0
    inside = sound.abs() < 0.25
    assert torch.allclose(loud[inside], sound[inside] * 10**0.6)
    assert torch.allclose(DEGRADATIONS["gain -12 dB"](sound), sound * 10**-0.6)


@pytest.mark.parametrize("percent", [-5, 5])
def test_speed_moves_a_tone_as_a_tape_does(percent):
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(2 * T) / T)
    moved = DEGRADATIONS[f"speed {percent:+d} %"](tone)
    peak_hz = float(torch.fft.rfft(moved).abs().argmax()) * T / moved.shape[0]
    assert peak_hz == pytest.approx(float(1_000 * Fraction(100 + percent, 100)), abs=1.0)


def test_a_room_answers_a_click_with_echoes_three_decibels_below_it():
    click = torch.zeros(T)
    click[0] = 1.0
    echo = DEGRADATIONS["room"](click)
    assert float(echo[0]) == pytest.approx(1.0, abs=1e-4)
    assert float(10 * torch.log10(echo[1:].square().sum())) == pytest.approx(-3.0, abs=0.1)
    assert float(echo[6_400:].abs().max()) < 1e-5


def test_a_missing_package_for_aac_is_named(monkeypatch, sound):
    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "av":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    load = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(EvaluationError, match="package av"):
        DEGRADATIONS["aac 64k"](sound)
