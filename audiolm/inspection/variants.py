"""The same clip in other versions: fewer codec levels, its semantic tokens alone, and runs with a part left out."""

from __future__ import annotations

from dataclasses import dataclass

from audiolm.receipt import Receipt
from audiolm.streams import Waveform


@dataclass(frozen=True)
class Rung:
    """One version of a clip; all rungs of a ladder have one length and, within 0.1 LU, one loudness.

    `num_levels` is how many codec levels were decoded (None: the original, and draws), `draw` counts from 1 the
    generations that follow the clip's semantic tokens alone. `mel_distance` (nats) and `si_sdr_db` compare with the
    original; a draw has no SI-SDR, since nothing ties its waveform to the original's. A draw is generated and has a
    receipt, of the tokens before the loudness was matched.
    """

    label: str
    waveform: Waveform
    num_levels: int | None = None
    draw: int | None = None
    mel_distance: float | None = None
    si_sdr_db: float | None = None
    generated: bool = False
    receipt: Receipt | None = None
