"""How much sound may go through before its watermark is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.intervals import wilson_interval
from audiolm.streams import Waveform
from audiolm.watermark.marking import check, mark

CROPS_S = (4.0, 3.0, 2.0)


@dataclass(frozen=True)
class Survival:
    """Of `num_clips`, how many had their mark found after the change, and how many seemed to have one without it.

    With a `note` it was not measured.
    """

    change: str
    num_clips: int = 0
    found: int = 0
    false_alarms: int = 0
    note: str = ""


def measure(clips: Sequence[Waveform], changes: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[Survival]:
    """Every change on every clip (16 kHz), marked and as it is; at last crops of the middle."""
    marked = [mark(clip) for clip in clips]
    crops = {f"crop to {seconds:g} s": lambda samples, s=seconds: _middle(samples, s) for seconds in CROPS_S}
    for name, change in {**changes, **crops}.items():
        try:
            found, alarms = (sum(_found(clip, change) for clip in kind) for kind in (marked, clips))
        except EvaluationError as error:  # an encoder that is not installed
            yield Survival(name, note=str(error))
        else:
            yield Survival(name, len(clips), found, alarms)


def table(rows: Sequence[Survival]) -> str:
    """Markdown, with 95 % intervals (Wilson)."""
    lines = ["| after | n | mark found | false alarms without one |", "|---|---:|---:|---:|"]
    for row in rows:
        counts = (row.found, row.false_alarms)
        cells = [row.note, ""] if row.note else [_share(count, row.num_clips) for count in counts]
        lines.append(f"| {row.change} | {row.num_clips or ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _found(clip: Waveform, change: Callable[[Tensor], Tensor]) -> bool:
    return check(Waveform(change(clip.samples))).found


def _middle(samples: Tensor, seconds: float) -> Tensor:
    length = round(seconds * SAMPLE_RATE_HZ)
    start = max(0, (samples.shape[0] - length) // 2)
    return samples[start : start + length]


def _share(count: int, num_clips: int) -> str:
    low, high = wilson_interval(count, num_clips)
    return f"{100 * count / num_clips:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
