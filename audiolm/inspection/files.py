"""A timeline as files: its sound, pictures for papers, tokens as a table and as tensors, its figures as JSON."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import save_file

from audiolm.audio import files
from audiolm.inspection.figures import save, timeline_figure
from audiolm.inspection.timeline import TABLE_COLUMNS, Timeline, TokenLane, summary, table


@dataclass(frozen=True)
class TimelineFiles:
    """`table` has one row a token; `tokens` holds, for each lane, "LABEL/ids" [N, L] and what else is scored of it."""

    audio: Path
    png: Path
    svg: Path
    table: Path
    tokens: Path
    numbers: Path

    @property
    def paths(self) -> list[Path]:
        return [getattr(self, field.name) for field in fields(self)]


def write_timeline(timeline: Timeline, folder: Path, comment: str = "") -> TimelineFiles:
    """Writes audio.wav (int16, with the comment), timeline.png, timeline.svg, tokens.csv, tokens.safetensors and
    numbers.json into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("audio.wav", "timeline.png", "timeline.svg", "tokens.csv", "tokens.safetensors", "numbers.json")
    written = TimelineFiles(*(folder / name for name in names))
    files.write_wav(written.audio, timeline.waveform, comment)
    figure = timeline_figure(timeline)
    for path in (written.png, written.svg):
        save(figure, path)
    _write_table(timeline, written.table)
    tensors = {name: values for lane in timeline.lanes for name, values in _tensors(lane).items()}
    save_file(tensors, written.tokens)
    written.numbers.write_text(json.dumps(summary(timeline), indent=1) + "\n", encoding="utf-8")
    return written


def _write_table(timeline: Timeline, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("lane", *TABLE_COLUMNS))
        for lane in timeline.lanes:
            writer.writerows((lane.label, *row) for row in table(lane))


def _tensors(lane: TokenLane) -> dict[str, torch.Tensor]:
    """Ids and ranks as int32, the rest as float32."""
    values = {"ids": lane.ids.to(torch.int32)}
    if lane.scores is not None:
        values |= {field.name: getattr(lane.scores, field.name) for field in fields(lane.scores)}
    return {f"{lane.label}/{name}": value.cpu().contiguous() for name, value in values.items() if value is not None}
