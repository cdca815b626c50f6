"""Speaker ranking and piano aspects on signals with known answers."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from audiolm.errors import EvaluationError
from audiolm.evaluation.continuations import ContinuedPrompt
from audiolm.evaluation.music import (
    JUDGED,
    correlation,
    distances,
    key_profile,
    listen,
    listen_to_all,
    loudness,
    onset_rate,
    pairing_figures,
    value_figures,
)
from audiolm.evaluation.notes import estimate_figures, note_statistics
from audiolm.evaluation.speaker import raised_to_level, rank_first_rates, speaker_encoder
from audiolm.inspection.pianoroll import Roll

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
    prompts = [listen(one, 0, len(one)) for one in (notes(440, 4), notes(311.13, 12, level=0.03))]
    found = distances(prompts, prompts)
    assert len(found) == 7
    for aspect, matrix in found.items():
        assert matrix.diagonal() == pytest.approx([0.0, 0.0], abs=1e-6)
        assert min(matrix[0, 1], matrix[1, 0]) > 0.1 or aspect not in JUDGED


def continued(hertz: float, other_hertz: float) -> ContinuedPrompt:
    prompt, rest = notes(hertz, 4), notes(other_hertz, 4)
    original = notes(hertz, 8, seconds=4.0)
    return ContinuedPrompt(f"{hertz:.0f}", f"{hertz:.0f}", prompt, rest, original, original)


def test_pairing_figures_set_own_beside_others_originals_and_an_untrained_stage():
    pitches = (440.0, 311.13, 261.63)
    samples, random = [continued(hertz, hertz) for hertz in pitches], [continued(hertz, 369.99) for hertz in pitches]
    sides = listen_to_all(samples, random)
    figures, p_values = pairing_figures(sides)
    assert [figure.name.split(", ")[1] for figure in figures[:4]] == [
        "own continuation",
        "others' continuations",
        "the original's rest",
        "an untrained stage's continuation",
    ]
    own, others, original, untrained = (figure.value for figure in figures[:4])
    assert own == pytest.approx(original, abs=0.05)
    assert min(others, untrained) > own + 0.5
    assert min(p_values.values()) >= 1 / 6 - 0.05  # three pairs have six orders


# ---- notes


def roll(*table: tuple[float, float, int, int]) -> Roll:
    return Roll(*(np.array(column) for column in zip(*table, strict=True)))


def test_notes_are_counted_where_they_begin_and_heard_while_they_sound():
    found = note_statistics(
        roll((0.0, 2.0, 60, 40), (1.0, 1.5, 64, 80), (1.5, 2.0, 76, 60), (2.0, 3.0, 61, 9)), 1.0, 2.0
    )
    assert found.rate == 2.0
    assert found.pitch_classes[4] == 1.0
    assert found.polyphony == pytest.approx(2.0)
    assert found.velocity == 70.0


def test_silence_has_no_notes_and_no_favourite_pitch():
    none = note_statistics(Roll(*(np.zeros(0, dtype=int) for _ in range(4))), 0.0, 2.0)
    assert (none.rate, none.polyphony, none.velocity) == (0.0, 0.0, None)
    assert none.pitch_classes == pytest.approx(np.full(12, 1 / 12))


def test_stretches_without_notes_have_no_velocity_to_compare_and_are_counted():
    samples = [continued(440.0, 440.0), continued(311.13, 311.13), continued(261.63, 261.63)]
    samples[0] = replace(samples[0], continuation=torch.zeros_like(samples[0].continuation))
    sides = listen_to_all(samples, samples)
    figures, p_values = pairing_figures(sides)
    found = {figure.name: figure for figure in [*figures, *value_figures(sides, samples, {})]}
    assert found["velocity (difference), own continuation"].n == 2
    assert found["velocity (difference), others' continuations"].n == 2
    assert found["velocity: own continuation, estimated"].n == 2
    assert found["velocity: own continuation, estimated"].value > 10.0
    assert found["stretches without notes: own continuation, estimated"].value == pytest.approx(1 / 3)
    assert found["stretches without notes: prompts, estimated"].value == 0.0
    assert 0.3 < p_values["velocity (difference)"] <= 1.0  # two pairs have two orders

    samples = [replace(one, continuation=torch.zeros_like(one.continuation)) for one in samples]
    figures, p_values = pairing_figures(listen_to_all(samples, samples))
    assert "velocity (difference)" not in p_values
    assert {figure.value for figure in figures if figure.name == "velocity (difference), own continuation"} == {None}


def test_exact_notes_stand_beside_the_estimate_where_they_are_known():
    samples = [continued(440.0, 440.0), continued(261.63, 261.63)]
    exact = {"440": roll(*((0.5 * index, 0.5 * index + 0.3, 69, 64) for index in range(12)))}
    figures = {figure.name: figure for figure in estimate_figures(samples, exact)}
    assert figures["note estimate, recall, recordings"].n == 1
    assert figures["note estimate, recall, recordings"].value > 0.8  # of the eight within the recording
    assert estimate_figures(samples, {}) == []
    values = {figure.name: figure for figure in value_figures(listen_to_all(samples, samples), samples, exact)}
    assert values["notes a second: the original's rest, exact"].value == pytest.approx(2.0)
    assert values["notes a second: own continuation, estimated"].n == 2
