"""A timeline as the page's component takes it: plain JSON values, arrays as base64. And what the component sends back.

Arrays are little-endian. Ids and ranks are uint16; nats and minus log probabilities are thousandths in uint16, so that
a probability is exact to 0.05 % of itself; ABSENT stands where there is no value. assets/timeline/lanes.js reads this.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from app.schemas import BOUNDS, MAX_CLIP_S
from audiolm.audio import spectra
from audiolm.config import STAGES
from audiolm.errors import RequestError
from audiolm.inspection.pianoroll import Roll
from audiolm.inspection.scores import TokenScores
from audiolm.inspection.seam import Seam
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform

ABSENT = 65535
MILLI = 1000.0
PEAK_BIN_S = 0.001
MEL_BANDS = 80
MEL_HOP = 160
MEL_RANGE_NATS = 8.0  # shown below the loudest cell; about 70 dB
MAX_LEVEL = 64
MAX_TIME_S = MAX_CLIP_S + BOUNDS["prompt_s"].maximum + BOUNDS["continuation_s"].maximum


@dataclass(frozen=True)
class Selection:
    """A token that a visitor chose: `level` is 0 for semantic tokens, else counts from 1; `time_s` is its start."""

    family: str
    level: int
    id: int
    time_s: float


def parse_selection(data: Any) -> Selection:
    """What the component's event carries, taken as hostile: only the four fields, of their types, within limits.

    Whether the clip has such a token is for the caller to see. Raises RequestError.
    """
    if not isinstance(data, Mapping) or set(data) != {"family", "level", "id", "time_s"}:
        raise RequestError("a selection must have family, level, id and time_s, and nothing else")
    family = data["family"]
    if not isinstance(family, str) or family not in STAGES:
        raise RequestError(f"family must be one of {', '.join(STAGES)}, found {str(family)[:40]!r}")
    level = _number("level", data["level"], MAX_LEVEL, whole=True)
    if (level == 0) != (family == "semantic"):
        raise RequestError(f"level must be 0 for semantic tokens and at least 1 for others, found {level} of {family}")
    token = _number("id", data["id"], ABSENT - 1, whole=True)
    return Selection(family, int(level), int(token), float(_number("time_s", data["time_s"], MAX_TIME_S)))


def _number(name: str, value: Any, maximum: float, whole: bool = False) -> int | float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= maximum or (whole and value != int(value)):  # NaN fails the comparison
        kind = "a whole number of 0" if whole else "0"
        raise RequestError(f"{name} must be {kind} to {maximum:g}, found {str(value)[:40]!r}")
    return value


def payload(timeline: Timeline) -> dict[str, Any]:
    """JSON-ready; 10 s after a prompt of 3 s, 12 levels, all scored: about 0.5 MB. Raises ValueError for ids beyond
    uint16."""
    return {
        "duration_s": timeline.waveform.duration_s,
        "prompt_s": float(timeline.prompt_s),
        "generated": timeline.generated,
        "waveform": _peaks(timeline.waveform),
        "mel": _mel(timeline.waveform),
        "lanes": [_lane(lane) for lane in timeline.lanes],
        "detector": _detector(timeline),
        "seam": None if timeline.seam is None else {"seamless": bool(timeline.seam.seamless)},
        "roll": None if timeline.roll is None else _roll(timeline.roll),
        "notes": _notes(timeline),
    }


def _peaks(waveform: Waveform) -> dict[str, Any]:
    """Lowest and highest sample of every bin, as int8 [bins, 2]."""
    samples = waveform.samples.detach().cpu().numpy()
    size = round(PEAK_BIN_S * waveform.sample_rate_hz)
    bins = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    peaks = np.stack([bins.min(axis=1), bins.max(axis=1)], axis=1)
    return {"step_s": size / waveform.sample_rate_hz, "peaks": _encoded((peaks.clip(-1, 1) * 127).round(), "i1")}


def _mel(waveform: Waveform) -> dict[str, Any]:
    """Log-mel spectrogram [bands, columns], 255 at the clip's loudest cell; column k is centred on k * step_s."""
    samples = waveform.samples.detach().cpu().float()
    mel = spectra.log_mel(samples[None], MEL_BANDS, hop_length=MEL_HOP, sample_rate_hz=waveform.sample_rate_hz)[0]
    shades = ((mel - mel.max()) / MEL_RANGE_NATS + 1.0).clamp(0.0, 1.0) * 255
    return {
        "num_columns": mel.shape[1],
        "step_s": MEL_HOP / waveform.sample_rate_hz,
        "range_nats": MEL_RANGE_NATS,
        "centres_hz": [round(hz, 1) for hz in spectra.mel_centres_hz(MEL_BANDS, waveform.sample_rate_hz).tolist()],
        "values": _encoded(shades.round().numpy(), "u1"),
    }


def _lane(lane: TokenLane) -> dict[str, Any]:
    if lane.ids.numel() and int(lane.ids.max()) >= ABSENT:
        raise ValueError(f"ids of lane {lane.label!r} must be below {ABSENT}, found {int(lane.ids.max())}")
    return {
        "family": lane.family,
        "label": lane.label,
        "rate_hz": lane.rate_hz,
        "first_level": lane.first_level,
        "num_frames": lane.ids.shape[0],
        "num_levels": lane.ids.shape[1],
        "ids": _whole_numbers(lane.ids),
        "scores": None if lane.scores is None else _scores(lane.scores),
    }


def _scores(scores: TokenScores) -> dict[str, Any]:
    return {
        "nats": _thousandths(scores.nats),
        "entropy": _thousandths(scores.entropy),
        "rank": _whole_numbers(scores.rank),
        "num_top": scores.top_ids.shape[-1],
        "top_ids": _whole_numbers(scores.top_ids),
        "top_nats": _thousandths(-scores.top_probabilities.clamp_min(1e-30).log()),
        "run_nats": None if scores.run_nats is None else _thousandths(scores.run_nats),
    }


def _detector(timeline: Timeline) -> dict[str, Any] | None:
    verdict = timeline.verdict
    if verdict is None or not verdict.segment_probabilities:
        return None
    return {
        "times_s": [round(float(time_s + timeline.verdict_start_s), 4) for time_s in verdict.segment_times_s],
        "probabilities": [round(float(probability), 4) for probability in verdict.segment_probabilities],
        "threshold": float(verdict.threshold),
    }


def _roll(roll: Roll) -> dict[str, Any]:
    return {
        "onset_s": roll.onset_s.round(3).tolist(),
        "end_s": roll.end_s.round(3).tolist(),
        "pitch": roll.pitch.tolist(),
        "velocity": roll.velocity.tolist(),
    }


def _notes(timeline: Timeline) -> list[str]:
    """Sentences to read under the picture."""
    notes = [] if timeline.seam is None else [_seam_note(timeline.seam)]
    return notes + [f"{lane.label}: {lane.note}" for lane in timeline.lanes if lane.note]


def _seam_note(seam: Seam) -> str:
    """The join in words. A level of nothing against nothing is not a number."""
    course = "within what the prompt itself does" if seam.seamless else "standing out from it"
    level = f"; the level steps by {seam.level_step_db:+.1f} dB" if math.isfinite(seam.level_step_db) else ""
    share = f"{100 * seam.flux_percentile:.0f} %"
    return f"The join: its spectral change is above {share} of the prompt's own, {course}{level}."


def _whole_numbers(values: Tensor) -> str:
    """Negative ones are absent, those beyond uint16 (ranks alone) stand at its end."""
    numbers = values.detach().cpu().numpy().astype(np.int64)
    return _encoded(np.where(numbers < 0, ABSENT, np.minimum(numbers, ABSENT - 1)), "<u2")


def _thousandths(values: Tensor) -> str:
    numbers = values.detach().cpu().double().numpy()
    rounded = np.clip(np.nan_to_num(numbers * MILLI, posinf=ABSENT), 0, ABSENT - 1).round()
    return _encoded(np.where(np.isnan(numbers), ABSENT, rounded), "<u2")


def _encoded(values: np.ndarray, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(dtype)).tobytes()).decode()
