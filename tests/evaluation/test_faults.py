"""Every fault is found where it is put in, and not in the sound it was put into."""

import math

import pytest
import torch

from audiolm.errors import EvaluationError
from audiolm.evaluation.faults import FAULTS, longest_gap_s, measure_faults, occurring

RATE = 16_000


def playing(seconds: float, seed: int = 0) -> torch.Tensor:
    """Struck, decaying notes of four partials at irregular times: four to six a second."""
    generator = torch.Generator().manual_seed(seed)
    sound, start_s = torch.zeros(round(seconds * RATE)), 0.0
    while start_s < seconds:
        time = torch.arange(len(sound) - round(start_s * RATE)) / RATE
        hertz = 220.0 * 2.0 ** (int(torch.randint(0, 24, (), generator=generator)) / 12)
        for partial in (1, 2, 3, 4):
            tone = torch.sin(2 * math.pi * partial * hertz * time) * torch.exp(-(3.0 + 2.0 * partial) * time)
            sound[-len(time) :] += 0.1 / partial * tone
        start_s += 0.17 + 0.08 * float(torch.rand((), generator=generator))
    noise = torch.randn(len(sound), generator=generator)
    return sound + 1e-4 * noise


PROMPT, REST = playing(4.0), playing(6.0, seed=1)


def with_noise(sound: torch.Tensor) -> torch.Tensor:
    noise = torch.randn(len(sound), generator=torch.Generator().manual_seed(7))
    return sound + 0.2 * sound.square().mean().sqrt() * noise


def with_holes(sound: torch.Tensor) -> torch.Tensor:
    holed = sound.clone()
    for start in (RATE, 3 * RATE):
        holed[start : start + 960] = 0.0
    return holed


def silent_end(sound: torch.Tensor) -> torch.Tensor:
    return torch.cat([sound[: len(sound) // 2], torch.zeros(len(sound) - len(sound) // 2)])


def held(sound: torch.Tensor) -> torch.Tensor:
    time = torch.arange(len(sound) - RATE) / RATE
    chord = sum(torch.sin(2 * math.pi * hertz * time) for hertz in (220.0, 277.2, 329.6))
    return torch.cat([sound[:RATE], 0.1 * chord])


def looped(sound: torch.Tensor) -> torch.Tensor:
    return sound[: round(1.1 * RATE)].repeat(6)[: len(sound)]


def buzzing(sound: torch.Tensor) -> torch.Tensor:
    time = torch.arange(len(sound)) / RATE
    return sound + 1e-4 * sum(torch.sin(2 * math.pi * hertz * time) for hertz in range(4050, 8000, 50))


def fading(sound: torch.Tensor) -> torch.Tensor:
    return sound * 10.0 ** (-torch.linspace(0.0, 30.0, len(sound)) / 20.0)


FAULTY = {
    "steady noise": with_noise,
    "noise between partials": with_noise,
    "drop-outs": with_holes,
    "silence": silent_end,
    "no onsets": held,
    "held sound": held,
    "loop": looped,
    "buzz lines": buzzing,
    "level drift": fading,
}


def found(continuation: torch.Tensor, domain: str) -> set[str]:
    return set(occurring(FAULTS, measure_faults(FAULTS, PROMPT, continuation, domain), domain))


def test_every_fault_has_a_faulty_sound():
    assert list(FAULTY) == [fault.name for fault in FAULTS]


def test_playing_has_no_fault():
    assert found(REST, "piano") == set()


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("domain", ["speech", "piano"])
def test_a_fault_is_found(name, domain):
    fault = next(fault for fault in FAULTS if fault.name == name)
    if domain in fault.limits:
        assert name in found(FAULTY[name](REST), domain)


def test_noise_under_notes_is_a_matter_of_piano():
    assert "noise between partials" not in measure_faults(FAULTS, PROMPT, REST, "speech")


def test_holes_are_counted():
    assert measure_faults(FAULTS, PROMPT, with_holes(REST), "piano")["drop-outs"] == 2


def test_silence_is_no_held_sound_no_noise_and_no_loop():
    silence = torch.zeros(4 * RATE)
    assert found(silence, "piano") == {"silence", "no onsets", "level drift"}


def test_a_gap_is_as_long_as_the_time_between_onsets():
    sound = torch.zeros(4 * RATE)
    for start_s in (0.5, 1.0, 3.2):
        time = torch.arange(len(sound) - round(start_s * RATE)) / RATE
        sound[round(start_s * RATE) :] += 0.3 * torch.sin(2 * math.pi * 440 * time) * torch.exp(-8.0 * time)
    assert longest_gap_s(sound, -60.0) == pytest.approx(2.2, abs=0.05)


def test_level_does_not_matter():
    loud, soft = (
        measure_faults(FAULTS, PROMPT, REST, "piano"),
        measure_faults(FAULTS, 0.1 * PROMPT, 0.1 * REST, "piano"),
    )
    assert soft == pytest.approx(loud, abs=0.5)


def test_too_short_a_sound_is_refused():
    with pytest.raises(EvaluationError, match="need 8000 samples of prompt and continuation, found 64000 and 7999"):
        measure_faults(FAULTS, PROMPT, REST[:7999], "piano")


def test_explanations_are_sentences():
    for fault in FAULTS:
        assert fault.explanation.endswith(".")
        assert "\n" not in fault.explanation
