"""How high a voice is: a group that every recording names, where the corpus says nothing of sex or age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data.corpus import Corpus, Item

HIGH_HZ = 165.0  # between the usual ranges of men's and of women's speaking voices
RANGE_HZ = (60.0, 400.0)
MAX_CROPS = 3  # a speaker


def voice_pitch_hz(samples: Tensor) -> float:
    """samples [T] at 16 kHz -> median pitch of the voiced frames (pYIN), NaN where none is voiced."""
    import librosa  # most commands need it not

    pitch, voiced, _ = librosa.pyin(
        samples.numpy(), fmin=RANGE_HZ[0], fmax=RANGE_HZ[1], sr=SAMPLE_RATE_HZ, hop_length=SAMPLE_RATE_HZ // 50
    )
    return float(np.median(pitch[voiced])) if voiced.any() else float("nan")


def high_voices(corpus: Corpus, places: Sequence[tuple[Item, int]], length: int) -> dict[str, bool]:
    """Whether each speaker of the crops at `places` speaks above 165 Hz: the median over a few of their crops."""
    heard: dict[str, list[float]] = {}
    for item, start in places:
        found = heard.setdefault(item.group, [])
        if len(found) < MAX_CROPS:
            found.append(voice_pitch_hz(corpus.waveform(item)[start : start + length]))
    medians = {group: float(np.median([p for p in found if p == p] or [np.nan])) for group, found in heard.items()}
    return {group: median >= HIGH_HZ for group, median in medians.items() if median == median}
