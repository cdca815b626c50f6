"""The estimated piano roll on notes whose pitch and time are known, and the note F1 on rolls made by hand."""

import numpy as np
import pytest
import torch

from audiolm.inspection.pianoroll import Roll, estimate_roll, note_f1

RATE = 16_000


def roll(*notes: tuple[float, int], held_s: float = 0.5) -> Roll:
    onset_s = np.array([onset for onset, _ in notes])
    pitch = np.array([key for _, key in notes], dtype=np.int64)
    return Roll(onset_s, onset_s + held_s, pitch, np.full(len(notes), 64))


def played(notes: Roll, duration_s: float, level: float = 0.1) -> torch.Tensor:
    """Struck strings: eight decaying partials a note, damped at its end."""
    mix, time_s = np.zeros(round(duration_s * RATE)), np.arange(round(duration_s * RATE)) / RATE
    for onset, end, pitch in zip(notes.onset_s, notes.end_s, notes.pitch, strict=True):
        since = np.maximum(time_s - onset, 0.0)
        sounding = (time_s >= onset) * np.exp(-2.0 * since - 30.0 * np.maximum(time_s - end, 0.0))
        f0 = 440.0 * 2 ** ((pitch - 69) / 12)
        for n in range(1, 9):
            if n * f0 < RATE / 2:
                mix += level * 0.6 ** (n - 1) * sounding * np.sin(2 * np.pi * n * f0 * since)
    return torch.from_numpy(mix).float()


CHORDS = roll((0.3, 48), (0.3, 64), (0.3, 67), (1.0, 72), (1.3, 72), (1.6, 55), (1.6, 59), (2.2, 40), (2.5, 90))


@pytest.mark.parametrize("level", [0.1, 0.003])
def test_struck_notes_are_found_whatever_the_level(level):
    found = estimate_roll(played(CHORDS, 3.0, level))
    assert note_f1(found, CHORDS)[2] > 0.9
    assert np.all(np.diff(found.onset_s) >= 0)
    assert found.velocity.min() >= 1
    assert found.velocity.max() <= 127


def test_a_note_ends_about_where_it_is_damped_or_struck_again():
    found = estimate_roll(played(roll((0.2, 60), (1.2, 60)), 2.5))
    assert found.pitch.tolist() == [60, 60]
    assert found.end_s[0] == pytest.approx(0.7, abs=0.25)
    assert found.end_s[1] == pytest.approx(1.7, abs=0.25)


def test_louder_notes_have_a_higher_velocity():
    soft, loud = played(roll((0.5, 60)), 3.0, 0.02), played(roll((1.5, 60)), 3.0, 0.2)
    velocity = estimate_roll(soft + loud).velocity
    assert velocity[0] < velocity[1]


@pytest.mark.parametrize("samples", [1, 500, 16_000])
def test_silence_has_no_notes(samples):
    found = estimate_roll(torch.zeros(samples))
    assert len(found) == 0
    assert found.polyphony(np.array([0.0])).tolist() == [0]


def test_polyphony_counts_the_sounding_notes():
    held = roll((0.0, 60), (0.2, 64), (1.0, 67))
    assert held.polyphony(np.array([0.1, 0.3, 0.6, 0.9, 1.2])).tolist() == [1, 2, 1, 0, 1]


def test_f1_matches_one_to_one_within_the_tolerance():
    exact = roll((0.0, 60), (1.0, 60), (1.0, 64))
    assert note_f1(exact, exact) == (1.0, 1.0, 1.0)
    assert note_f1(roll((0.04, 60), (1.04, 60)), exact) == (1.0, pytest.approx(2 / 3), pytest.approx(0.8))
    assert note_f1(roll((0.0, 60), (0.02, 60)), exact)[0] == 0.5
    assert note_f1(roll((1.0, 65), (1.06, 60)), exact) == (0.0, 0.0, 0.0)
    assert note_f1(roll(), exact) == (0.0, 0.0, 0.0)
    assert note_f1(roll(), roll()) == (1.0, 1.0, 1.0)
