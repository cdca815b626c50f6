"""One time axis for everything known of a clip: sound, token lanes with their scores, detector, seam and notes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from audiolm.detector import Verdict
from audiolm.inspection.pianoroll import Roll
from audiolm.inspection.scores import TokenScores
from audiolm.inspection.seam import Seam
from audiolm.streams import Waveform


@dataclass(frozen=True)
class TokenLane:
    """Tokens [N, L] of one family under one label; token n covers the time from n / rate_hz to (n + 1) / rate_hz.

    `first_level` is the number of the first row as shown: 1 for coarse, 5 for fine (after 4 coarse levels), 0 for
    semantic. An id of -1 is no token: an ablation left it out. Where tokens are not those that the model chose or read,
    the `note` says so.
    """

    family: str  # "semantic", "coarse" or "fine"
    label: str
    rate_hz: int  # 25 or 50
    first_level: int
    ids: Tensor  # [N, L]
    scores: TokenScores | None = None
    note: str = ""

    @property
    def duration_s(self) -> float:
        return self.ids.shape[0] / self.rate_hz


@dataclass(frozen=True)
class Timeline:
    """A clip of 16 kHz, mono, and what is known of it. All times count from its start but the verdict's segments.

    `prompt_s` is 0 where there is no prompt, `generated` is true where a model made any part of it. The verdict's
    segment times count from `verdict_start_s`. Lanes are as long as the audio, to within one token. `roll` is an
    estimate, of piano only.
    """

    waveform: Waveform
    prompt_s: float
    generated: bool
    lanes: tuple[TokenLane, ...]
    verdict: Verdict | None = None
    verdict_start_s: float = 0.0
    seam: Seam | None = None
    roll: Roll | None = None
