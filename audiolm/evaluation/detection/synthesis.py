"""Sounds that no checkpoint made: rule-based speech (espeak-ng), additive tones, and next to nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from audiolm.audio.files import read_waveform
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.espeak import run_espeak

VOICES = ("en-us", "en-us+f2", "en-gb", "en-gb+f4", "en-us+m3", "en-gb-scotland", "en-us+f5", "en-gb-x-rp+m7")
SPEEDS_WPM = (140, 165, 190)
SENTENCES = (
    "The boat left the harbour before the sun had risen above the hills.",
    "She folded the letter twice and put it back into the drawer.",
    "Every morning he counts the trains that pass behind the old mill.",
    "A narrow path leads through the garden to a gate of green iron.",
    "They had walked for an hour when the rain began to fall.",
    "Nobody remembers who planted the three tall trees beside the church.",
    "The doctor asked a few questions and wrote the answers down.",
    "When the music stopped, the whole room was silent for a moment.",
    "Our neighbours keep bees, and in summer they give us honey.",
    "He bought a second ticket because he had lost the first.",
    "The river is wide here, but you can cross it on the ice in winter.",
    "Put the kettle on, and I will tell you what happened yesterday.",
)
_SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones of a major key
_NUM_PARTIALS = 8


def espeak(count: int, seconds: float) -> Iterator[Tensor]:
    """`count` clips [T] of eight voices at three speeds, each two sentences, at most `seconds` long.

    Raises EvaluationError where espeak-ng is not installed or fails.
    """
    ways = list(product(SPEEDS_WPM, VOICES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for index in range(count):
            speed, voice = ways[index % len(ways)]
            text = " ".join(SENTENCES[(index + turn) % len(SENTENCES)] for turn in (0, 1 + index // len(SENTENCES)))
            run_espeak("-v", voice, "-s", str(speed), "-w", str(path), text)
            yield read_waveform(path, max_s=seconds, trusted=True).samples


def additive_notes(count: int, seconds: float, seed: int = 0) -> Iterator[Tensor]:
    """`count` clips [T] of chords and melodies: eight decaying sine partials a note, in a random key, at -23 dB."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        clip, length = torch.zeros(round(seconds * SAMPLE_RATE_HZ)), round(seconds * SAMPLE_RATE_HZ)
        key = int(torch.randint(45, 57, (1,), generator=generator))
        onset_s = 0.0
        while onset_s < seconds:
            first = round(onset_s * SAMPLE_RATE_HZ)
            for _ in range(int(torch.randint(1, 4, (1,), generator=generator))):
                degree = int(torch.randint(2 * len(_SCALE), (1,), generator=generator))
                pitch = key + 12 * (degree // len(_SCALE)) + _SCALE[degree % len(_SCALE)]
                clip[first:] += _note(440.0 * 2.0 ** ((pitch - 69) / 12), length - first)
            onset_s += float(0.15 + 0.5 * torch.rand((), generator=generator))
        yield clip * 10.0 ** (-23.0 / 20.0) / clip.square().mean().sqrt()


def _note(pitch_hz: float, length: int) -> Tensor:
    """[length]: partials at 1 / k of the first's amplitude, the higher the sooner gone."""
    time = torch.arange(length) / SAMPLE_RATE_HZ
    number = torch.arange(1, _NUM_PARTIALS + 1)[:, None]
    number = number[number[:, 0] * pitch_hz < 0.45 * SAMPLE_RATE_HZ]
    partials = torch.sin(2 * torch.pi * number * pitch_hz * time) / number * torch.exp(-(1.0 + number) * time)
    return partials.sum(dim=0) * (time / 0.005).clamp(max=1.0)  # 5 ms attack: no click


def near_silence(count: int, seconds: float, seed: int = 0) -> Iterator[Tensor]:
    """`count` clips [T]: digital silence, and white noise 70 to 90 dB below full scale."""
    generator, length = torch.Generator().manual_seed(seed), round(seconds * SAMPLE_RATE_HZ)
    for index in range(count):
        level = 0.0 if index % 4 == 0 else 10.0 ** (-(70.0 + 20.0 * float(torch.rand((), generator=generator))) / 20.0)
        yield level * torch.randn(length, generator=generator)
