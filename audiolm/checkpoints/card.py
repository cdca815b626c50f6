"""The model card (README.md of a checkpoint), written from a JSON object of facts, all of which must be there.

name, domain, licence (the Hub's identifier, such as cc-by-4.0), summary (one or two lines: what a picker shows)
about       paragraphs: what it is, and where it departs from the papers
data        [{name, hours, licence, use}], and credit: a paragraph with the credits the licences ask for
training    [{component, parameters, steps, hours, hardware, command, curve}]; curve: validation losses in order, or []
figures     [{what, value, baseline, n, command, date}], the values as they are to be read, "" where there is none
limits, worse_for   lists of sentences: what it cannot do, and for whom it works worse
watermark   a sentence: whether its output carries a mark

and, where there is more to tell of the training:
campaign    Markdown (headings from ### on): what was run in which order, what helped and what did not
pictures    [{file, caption}], PNG or JPEG files named from the facts' folder; they are copied beside the card
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from audiolm.checkpoints.info import check_labels
from audiolm.checkpoints.pictures import read_picture
from audiolm.checkpoints.strict_json import read_object, require_fields
from audiolm.errors import CheckpointError

FIELDS: dict[str, type] = {
    "name": str,
    "domain": str,
    "licence": str,
    "summary": str,
    "about": str,
    "data": list,
    "credit": str,
    "training": list,
    "figures": list,
    "limits": list,
    "worse_for": list,
    "watermark": str,
}
DATA_FIELDS: dict[str, type] = {"name": str, "hours": float, "licence": str, "use": str}
TRAINING_FIELDS: dict[str, type] = {
    "component": str,
    "parameters": int,
    "steps": int,
    "hours": float,
    "hardware": str,
    "command": str,
    "curve": list,
}
FIGURE_FIELDS: dict[str, type] = {"what": str, "value": str, "baseline": str, "n": int, "command": str, "date": str}
PICTURE_FIELDS: dict[str, type] = {"file": str, "caption": str}
OPTIONAL_FIELDS: dict[str, type] = {"campaign": str, "pictures": list}
MAX_SUMMARY_LINES = 2
BARS = "▁▂▃▄▅▆▇█"


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a JSON file, checked. Raises CheckpointError naming the field that is missing or wrong."""
    return check_facts(read_object(path), str(path))


def check_facts(facts: Any, where: str = "card") -> dict[str, Any]:
    """`facts`, whole numbers made floats where a float is meant. Raises CheckpointError; nothing may be left empty."""
    given = {name: kind for name, kind in OPTIONAL_FIELDS.items() if isinstance(facts, dict) and name in facts}
    facts = {"campaign": "", "pictures": []} | require_fields(where, facts, FIELDS | given)
    check_labels(where, facts["name"], facts["domain"], facts["summary"])
    if facts["summary"].count("\n") >= MAX_SUMMARY_LINES:
        raise CheckpointError(f"{where}: summary must be at most {MAX_SUMMARY_LINES} lines")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,63}", facts["licence"]):
        raise CheckpointError(
            f"{where}: licence must be a Hub identifier such as cc-by-4.0, found {facts['licence']!r}"
        )
    if empty := [name for name in FIELDS if name != "figures" and not facts[name]]:
        raise CheckpointError(f"{where}: a card may not leave out {', '.join(empty)}")
    rows = {"data": DATA_FIELDS, "training": TRAINING_FIELDS, "figures": FIGURE_FIELDS, "pictures": PICTURE_FIELDS}
    for name, fields in rows.items():
        facts[name] = [_row(f"{where}: {name}[{i}]", row, fields) for i, row in enumerate(facts[name])]
    for i, row in enumerate(facts["training"]):
        _require_all(f"{where}: training[{i}].curve", row["curve"], (int, float))
    names = [Path(row["file"]).name for row in facts["pictures"]]
    if len(set(names)) < len(names):
        raise CheckpointError(f"{where}: pictures must have names of their own, found {', '.join(names)}")
    for name in ("limits", "worse_for"):
        _require_all(f"{where}: {name}", facts[name], (str,))
    return facts


def render(facts: dict[str, Any]) -> str:
    """The card as Markdown with the Hub's YAML front matter. Raises CheckpointError like `check_facts`."""
    facts = check_facts(facts)
    sections = [
        _front_matter(facts),
        f"# {facts['name']}\n\n{facts['summary']}\n\n{facts['about']}",
        f"## Data and licences\n\n{_data(facts['data'])}\n\n{facts['credit']}\n\nThese weights: `{facts['licence']}`.",
        f"## Training\n\n{_training(facts['training'])}",
        *_campaign(facts["campaign"], facts["pictures"]),
        f"## Figures\n\n{_figures(facts['figures'])}",
        f"## Limits\n\n{_bullets(facts['limits'])}",
        f"## For whom it works worse\n\n{_bullets(facts['worse_for'])}",
        f"## Watermark and detection\n\n{facts['watermark']}",
        _usage(facts["name"]),
    ]
    return "\n\n".join(sections) + "\n"


def read_facts_pictures(path: Path, facts: dict[str, Any]) -> dict[str, bytes]:
    """Contents by name of the pictures of the facts read from `path`. Raises CheckpointError."""
    files = [path.parent / row["file"] for row in facts["pictures"]]
    return {file.name: read_picture(file) for file in files}


def _front_matter(facts: dict[str, Any]) -> str:
    tags = ["audiolm", "audio-generation", "audio-continuation", facts["domain"]]
    lines = [
        "---",
        f"license: {facts['licence']}",
        "library_name: audiolm",
        "pipeline_tag: audio-to-audio",
        *(["language:", "- en"] if facts["domain"] == "speech" else []),
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
    ]
    return "\n".join(lines)


def _data(rows: list[dict[str, Any]]) -> str:
    cells = [[row["name"], f"{row['hours']:g}", row["licence"], row["use"]] for row in rows]
    return _table(["source", "hours", "licence", "used for"], cells)


def _training(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            row["component"],
            f"{row['parameters']:,}",
            f"{row['steps']:,}",
            f"{row['hours']:g}",
            row["hardware"],
            sparkline(row["curve"]),
        ]
        for row in rows
    ]
    table = _table(["component", "parameters", "steps", "hours", "hardware", "validation loss"], cells)
    commands = "\n".join(f"# {row['component']}\n{row['command']}" for row in rows)
    return f"{table}\n\nThe commands:\n\n```sh\n{commands}\n```"


def _campaign(text: str, pictures: list[dict[str, Any]]) -> list[str]:
    """The section, or none."""
    shown = shown_pictures(pictures)
    return ["\n\n".join(part for part in ("## The campaign", text, *shown) if part)] if text or shown else []


def shown_pictures(pictures: list[dict[str, Any]]) -> list[str]:
    """Markdown of each; captions stand under their pictures too, where they can be read."""
    captions = [" ".join(re.sub(r"[\[\]]", "", row["caption"]).split()) for row in pictures]
    return [
        f"![{caption}]({Path(row['file']).name})\n\n{caption}" for row, caption in zip(pictures, captions, strict=True)
    ]


def _figures(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "None measured yet."
    cells = [[row["what"], row["value"], row["baseline"], str(row["n"]), row["date"]] for row in rows]
    commands = "\n".join(dict.fromkeys(row["command"] for row in rows))
    table = _table(["what", "value", "beside it", "n", "measured"], cells)
    return f"{table}\n\nMeasured with:\n\n```sh\n{commands}\n```"


def _usage(name: str) -> str:
    return (
        "## How to use it\n\n"
        "```sh\n"
        f"python -m audiolm continue PROMPT.wav --checkpoint {name} --seconds 7 --seed 3 --out OUT/\n"
        "```\n\n"
        "or in Python:\n\n"
        "```python\n"
        "from audiolm import Pipeline, load_checkpoint\n\n"
        f'pipeline = Pipeline(load_checkpoint("{name}"))\n'
        "```\n\n"
        "`--checkpoint` takes an embedded name, a folder, or a Hub id (`owner/name`). Every file is checked against "
        "its SHA-256 when loaded."
    )


def sparkline(values: list[float], width: int = 24) -> str:
    """`█▅▃▂▁ 6.91 → 3.20`: at most `width` bars, then first and last value; "" without values."""
    if not values:
        return ""
    count = min(width, len(values))
    picked = [values[round(i * (len(values) - 1) / max(count - 1, 1))] for i in range(count)]
    low, high = min(picked), max(picked)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    bars = "".join(BARS[round((value - low) * scale)] for value in picked)
    return f"{bars} {values[0]:.3g} → {values[-1]:.3g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _bullets(sentences: list[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _row(where: str, row: Any, fields: dict[str, type]) -> dict[str, Any]:
    """A row with its fields; JSON does not tell 5 from 5.0, so whole numbers pass where a float is meant."""
    if isinstance(row, dict):
        row = {
            name: float(value) if type(value) is int and fields.get(name) is float else value
            for name, value in row.items()
        }
    return require_fields(where, row, fields)


def _require_all(where: str, values: list[Any], types: tuple[type, ...]) -> None:
    for value in values:
        if type(value) not in types:
            raise CheckpointError(f"{where}: unexpected {json.dumps(value, default=str)[:80]}")
