"""Speaker ranking and piano aspects on signals with known answers."""

import sys

import numpy as np
import pytest
import torch

from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import ContinuedPrompt
from audiolm.evaluation.music import correlation, distances, key_profile, loudness, onset_rate, pairing_figures
from audiolm.evaluation.speaker import raised_to_level, rank_first_rates, speaker_encoder

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0, level: float = 0.1) -> torch.Tensor:
    return level * torch.sin(2 * torch.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)


def notes(hertz: float, count: int, seconds: float = 2.0, level: float = 0.3) -> torch.Tensor:
    """`count` struck, decaying tones."""
    each = tone(hertz, seconds / count, level)
    return (each * torch.exp(-torch.arange(len(each)) / (0.1 * RATE))).repeat(count)


# ---- speaker


def test_the_right_voice_first_is_certain_and_the_wrong_one_never():
    groups = [str(row) for row in range(12)]
    assert (rank_first_rates(np.eye(12), groups) == 1.0).all()
    assert (rank_first_rates(-np.eye(12), groups) == 0.0).all()


def test_the_chance_counts_all_draws_of_candidates():
    similarity = np.zeros((12, 12))
    similarity[0] = np.arange(12.0)
    similarity[0, 0] = 10.5  # ten of the eleven others are worse; nine of eleven are drawn
    rates = rank_first_rates(similarity, [str(row) for row in range(12)])
    assert rates[0] == pytest.approx(2 / 11)
    assert rates[1] == 0.0  # all equal: a tie counts against


def test_continuations_of_the_same_speaker_are_no_rivals():
    similarity = np.eye(12)
    similarity[0, 1] = 2.0
    groups = ["same", "same", *(str(row) for row in range(10))]
    assert rank_first_rates(similarity, groups)[0] == 1.0


def test_too_few_speakers_are_refused():
    with pytest.raises(EvaluationError, match="needs 9 continuations of other speakers, found 4"):
        rank_first_rates(np.eye(5), list("abcde"))


def test_quiet_speech_is_raised_and_loud_speech_stays():
    assert float(raised_to_level(tone(100, level=1e-3)).square().mean()) == pytest.approx(1e-3, rel=1e-3)
    assert torch.equal(raised_to_level(tone(100)), tone(100))
    assert torch.equal(raised_to_level(torch.zeros(8)), torch.zeros(8))


def test_a_missing_speaker_encoder_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(EvaluationError, match="needs the package resemblyzer"):
        speaker_encoder()


# ---- piano


@pytest.mark.parametrize(("hertz", "pitch_class"), [(440.0, 9), (261.63, 0), (1046.5, 0), (311.13, 3)])
def test_a_tone_has_its_pitch_class(hertz, pitch_class):
    profile = key_profile(tone(hertz))
    assert profile.argmax() == pitch_class
    assert profile.sum() == pytest.approx(1.0)


def test_silence_has_no_key():
    assert key_profile(torch.zeros(RATE)) == pytest.approx(np.full(12, 1 / 12))
    assert correlation(np.full(12, 1 / 12), np.arange(12.0)) == 0.0


def test_correlation_is_one_for_a_vector_itself():
    assert correlation(np.arange(12.0), 3 + 2 * np.arange(12.0)) == pytest.approx(1.0)


def test_onsets_are_counted():
    assert onset_rate(notes(440, 8)) == pytest.approx(4.0, abs=0.5)
    assert onset_rate(torch.zeros(2 * RATE)) == 0.0


def test_six_decibels_are_six_loudness_units():
    assert loudness(tone(1000, level=0.2)) - loudness(tone(1000, level=0.1)) == pytest.approx(6.02, abs=0.01)


def test_every_aspect_is_closest_for_what_it_describes():
    prompts = [notes(440, 4), notes(311.13, 12, level=0.03)]
    found = distances(prompts, prompts)
    assert len(found) == 3
    for matrix in found.values():
        assert matrix.diagonal() == pytest.approx([0.0, 0.0], abs=1e-6)
        assert min(matrix[0, 1], matrix[1, 0]) > 0.1


def test_pairing_figures_set_own_beside_others_and_originals():
    samples = [
        ContinuedPrompt(str(row), str(row), notes(hertz, 4), notes(hertz, 4), notes(hertz, 4).repeat(2))
        for row, hertz in enumerate((440.0, 311.13, 261.63))
    ]
    figures, p_values = pairing_figures(samples)
    key_own, key_others, key_original = (figure.value for figure in figures[:3])
    assert key_own == pytest.approx(key_original, abs=0.05)
    assert key_others > key_own + 0.5
    assert min(p_values.values()) >= 1 / 6 - 0.05  # three pairs have six orders
