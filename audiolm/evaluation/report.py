"""What was measured, as values, plain tables, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from audiolm.errors import EvaluationError
from audiolm.intervals import Interval, NamedEstimate
from audiolm.receipt import versions

_HEADINGS = ("figure", "value", "95 % interval", "n")


@dataclass(frozen=True)
class Figure(NamedEstimate):
    """One number: `value` None where it could not be computed, and then `reason` says why."""

    reason: str = ""

    @classmethod
    def of(cls, name: str, interval: Interval) -> Self:
        return cls(name, interval.value, interval.low, interval.high, interval.n)

    @classmethod
    def computed(cls, name: str, compute: Callable[[], Interval]) -> Self:
        """`compute()`, or the reason of the EvaluationError it raises."""
        try:
            return cls.of(name, compute())
        except EvaluationError as error:
            return cls(name, None, reason=str(error))

    @property
    def interval(self) -> str:
        return "" if self.low is None or self.high is None else f"{_number(self.low)} .. {_number(self.high)}"

    def cells(self) -> tuple[str, str, str, str]:
        if self.value is None:
            return self.name, "-", self.reason, str(self.n or "")
        return self.name, _number(self.value), self.interval, str(self.n)

    def for_card(self) -> str:
        """Value and interval, or why there is none."""
        if self.value is None:
            return self.reason
        return f"{_number(self.value)} ({self.interval})" if self.interval else _number(self.value)


@dataclass(frozen=True)
class RowReport:
    """One row of the acceptance list on one corpus; `met` is None where the target could not be judged.

    `headlines` are the names of the figures that a model card shows.
    """

    row: str
    title: str
    target: str
    figures: tuple[Figure, ...] = ()
    met: bool | None = None
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    corpus: str = ""
    headlines: tuple[str, ...] = ()

    def figure(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)

    @property
    def verdict(self) -> str:
        return {True: "met", False: "not met", None: "not judged"}[self.met]

    @property
    def _heading(self) -> str:
        return f"{self.title} ({self.corpus})" if self.corpus else self.title

    def text(self) -> str:
        lines = [f"{self.row}  {self._heading}", f"  target: {self.target}: {self.verdict}  ({self.seconds:.0f} s)"]
        lines += [f"  {line}" for line in _aligned([_HEADINGS, *(figure.cells() for figure in self.figures)])]
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])

    def markdown(self) -> str:
        rows = [_HEADINGS, ("---", "---:", "---", "---:"), *(figure.cells() for figure in self.figures)]
        lines = [f"### {self.row} {self._heading}", "", f"Target: {self.target}: **{self.verdict}**.", ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])


@dataclass(frozen=True)
class Report:
    """All rows of one command. `sha256` is the checkpoint's (of its config.json), `components` are the hashes in it."""

    domain: str
    subject: str
    sha256: str
    components: dict[str, str]
    data: str
    command: str
    rows: tuple[RowReport, ...] = ()
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    versions: dict[str, str] = field(default_factory=versions)

    def header(self) -> str:
        hashes = ", ".join(f"{name} {digest[:12]}" for name, digest in self.components.items())
        lines = (
            f"{self.domain}: {self.subject}" + (f" (checkpoint {self.sha256[:12]})" if self.sha256 else ""),
            f"components: {hashes}",
            f"date: {self.date}",
            f"command: {self.command}",
        )
        return "\n".join(lines)

    def text(self) -> str:
        return "\n\n".join([self.header(), *(row.text() for row in self.rows)]) + "\n"

    def markdown(self) -> str:
        """For a model card."""
        hashes = ", ".join(f"{name} `{digest[:12]}`" for name, digest in self.components.items())
        lines = [
            f"Measured {self.date} on {self.data}, {hashes}:",
            "",
            "```",
            self.command,
            "```",
            "",
            "",
        ]
        return "\n".join(lines) + "\n\n".join(row.markdown() for row in self.rows) + "\n"

    def card_figures(self) -> list[dict[str, Any]]:
        """The headlines of all rows as the facts of a model card have them (`audiolm.checkpoints.card`)."""
        return [
            {
                "what": f"{row.row} {row.title} ({row.corpus}): {name}",
                "value": row.figure(name).for_card(),
                "baseline": f"target: {row.target}: {row.verdict}",
                "n": row.figure(name).n,
                "command": self.command,
                "date": self.date[:10],
            }
            for row in self.rows
            for name in row.headlines
        ]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def _number(value: float) -> str:
    if value != 0.0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return [
        "  ".join(
            cell.rjust(width) if column in (1, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
