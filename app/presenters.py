"""Results and states -> what a reader sees as text: HTML fragments, plain rows. Pure; foreign strings are escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from app.figures import LiveTokens, png
from app.results import Course, Finished, Loading, SavedContinuation, Started, Waiting
from audiolm.checkpoints import CheckpointInfo
from audiolm.events import Continuation, Progress, Result
from audiolm.receipt import Receipt

STAGE_NAMES = {
    "encode": "Reading the prompt",
    "semantic": "Semantic tokens: what comes next",
    "coarse": "Coarse tokens: voice and timbre",
    "fine": "Fine tokens: detail",
    "decode": "Tokens to sound",
    "mark": "Marking it as generated",
    "detect": "Asking the detector",
    "watermark": "Looking for a watermark",
    "reconstruct": "Reconstructing",
    "score": "Asking the stages about every token",
    "draw": "Drawing",
    "clips": "Making the clips",
}
CONTINUE_STAGES = ("encode", "semantic", "coarse", "fine", "decode", "mark", "detect")


# while a run goes on


def progress_html(progress: Progress, elapsed_s: float | None = None, stages: Sequence[str] = ()) -> str:
    """A progress bar with the stage's name, how far it is and tokens a second; `stages` are all of the run's, or none
    where they do not come one after the other."""
    share = min(max(progress.done / progress.total, 0.0), 1.0) if progress.total > 0 else 0.0
    name = STAGE_NAMES.get(progress.stage, progress.stage)
    rate = f"{progress.tokens_per_s:,.0f} tokens/s" if progress.tokens_per_s > 0 else ""
    return _bar(
        name, share, " · ".join(part for part in (rate, _seconds(elapsed_s)) if part), _steps(progress.stage, stages)
    )


def busy_html(text: str, elapsed_s: float | None = None) -> str:
    """A bar without an end in sight."""
    return _bar(text, None, _seconds(elapsed_s), "")


def _seconds(elapsed_s: float | None) -> str:
    return "" if elapsed_s is None else f"{elapsed_s:.0f} s"


def event_row(event: Course) -> dict[str, Any]:
    """How a run goes, as plain JSON values; while it waits, `ahead` says how many go first."""
    if isinstance(event, Progress):
        return {"status": "running", **asdict(event)}
    waiting = {"ahead": event.ahead, "estimate_s": event.estimate_s} if isinstance(event, Waiting) else {}
    return {"status": "running", "stage": type(event).__name__.lower(), "text": event_text(event), **waiting}


def event_text(event: Course) -> str:
    """How a run goes, in a few words."""
    if isinstance(event, Loading):
        return f"Loading {event.checkpoint}"
    if isinstance(event, Started):
        return STAGE_NAMES["encode"]
    if isinstance(event, Waiting) and event.ahead:
        about = "" if event.estimate_s is None else f", about {max(event.estimate_s, 1.0):.0f} s"
        return f"Waiting: {event.ahead} run{'s go' if event.ahead > 1 else ' goes'} first{about}"
    if isinstance(event, Waiting) and event.again:
        return "The engine was started again: this run begins anew"
    return "Working"


def notice_html(text: str, kind: str = "info") -> str:
    """A line of status; `kind` is info, done, stopped or error."""
    role = "alert" if kind == "error" else "status"
    return f'<div class="notice {escape(kind)}" role="{role}">{escape(text)}</div>'


def live_html(live: LiveTokens) -> str:
    """The token lanes so far, as an image that fills the width."""
    picture = live.picture()
    source = base64.b64encode(png(picture)).decode()
    mark = 100 * live.prompt_frames / live.num_frames
    return (
        f'<figure class="live"><div class="lanes" style="--mark:{mark:.2f}%">'
        f'<img src="data:image/png;base64,{source}" style="height:{2 * picture.shape[0]}px" '
        'alt="Token lanes of the continuations as they are generated"></div>'
        f"<figcaption>{_legend()}</figcaption></figure>"
    )


def _legend() -> str:
    return "".join(f'<span class="key {name}">{name}</span>' for name in ("semantic", "coarse", "fine"))


def _bar(name: str, share: float | None, right: str, below: str) -> str:
    now = "" if share is None else f' aria-valuenow="{100 * share:.0f}"'
    fill = (
        '<span class="fill endless"></span>'
        if share is None
        else f'<span class="fill" style="width:{100 * share:.1f}%"></span>'
    )
    percent = "" if share is None else f"{100 * share:.0f} % · "
    return (
        f'<div class="progress"><div class="line"><strong>{escape(name)}</strong>'
        f"<span>{percent}{escape(right)}</span></div>"
        f'<div class="bar" role="progressbar" aria-label="{escape(name)}" aria-valuemin="0" aria-valuemax="100"{now}>'
        f"{fill}</div>{below}</div>"
    )


def _steps(current: str, stages: Sequence[str]) -> str:
    if current not in stages:
        return ""
    place = stages.index(current)
    items = "".join(
        f'<li class="{"done" if n < place else "now" if n == place else ""}">{stage}</li>'
        for n, stage in enumerate(stages)
    )
    return f'<ol class="steps" aria-hidden="true">{items}</ol>'


def prompt_name(path: Path) -> str:
    """ "speech_two_sisters.wav" -> "two sisters"."""
    return path.stem.partition("_")[2].replace("_", " ").strip() or path.stem


# results


def finished_text(result: Result, elapsed_s: float, notes: Sequence[str] = ()) -> str:
    """One line on a finished run: how many, how long, the seed, tokens a second a stage."""
    count, seed = len(result.continuations), result.continuations[0].receipt.request.seed
    timings = result.timings.items()
    rates = ", ".join(f"{stage} {timing.tokens_per_s:,.0f}/s" for stage, timing in timings if timing.tokens > 0)
    parts = [f"{count} continuation{'s' * (count != 1)} in {elapsed_s:.1f} s", f"seed {seed}"]
    if rates:
        parts.append(f"tokens: {rates}")
    return " · ".join([*parts, *notes])


def heading_html(number: int, continuation: Continuation) -> str:
    """Title of a result card, labelled GENERATED."""
    heard_s = continuation.waveform.duration_s
    return (
        f'<div class="heading"><h2>Continuation {number}</h2><span class="generated-label">GENERATED</span>'
        f'<span class="lengths">{continuation.prompt_s:.1f} s prompt + {heard_s - continuation.prompt_s:.1f} s'
        "</span></div>"
    )


def receipt_html(receipt: Receipt) -> str:
    """The receipt's main lines, and the whole of it folded away."""
    rows = {
        "checkpoint": f"{receipt.checkpoint} {short_hash(receipt.checkpoint_sha256)}",
        "seed": f"{receipt.request.seed}, row {receipt.row}",
        "prompt": short_hash(receipt.prompt_sha256),
        "tokens": short_hash(receipt.tokens_sha256),
        "watermark": receipt.watermark or "none",
        "verdict": str((receipt.verdict or {}).get("label", "none")),
    }
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows.items())
    return (
        f'<details class="receipt"><summary><dl>{cells}</dl></summary>'
        f'<pre tabindex="0">{escape(receipt.to_json(indent=2))}</pre></details>'
    )


def finished_row(done: Finished) -> dict[str, Any]:
    """A finished run as plain JSON values, for the API."""
    timings = done.result.timings.items()
    return {
        "status": "done",
        "checkpoint": checkpoint_row(done.checkpoint),
        "seconds": round(done.elapsed_s, 3),
        "tokens_per_s": {stage: round(timing.tokens_per_s, 1) for stage, timing in timings},
        "continuations": [_continuation_row(number, saved) for number, saved in enumerate(done.saved, 1)],
    }


def _continuation_row(number: int, saved: SavedContinuation) -> dict[str, Any]:
    continuation, mark = saved.continuation, saved.mark
    return {
        "continuation": number,
        "generated": True,
        "prompt_s": continuation.prompt_s,
        "duration_s": continuation.waveform.duration_s,
        "watermark": None if mark is None else {"name": continuation.receipt.watermark, **asdict(mark)},
        "verdict": None if continuation.verdict is None else continuation.verdict.to_dict(),
        "receipt": json.loads(continuation.receipt.to_json()),
    }


# checkpoints


def checkpoint_html(info: CheckpointInfo) -> str:
    """A checkpoint in two lines, for under the picker."""
    return (
        f'<div class="checkpoint"><span class="domain {escape(info.domain)}">{escape(info.domain)}</span> '
        f"{escape(info.summary)} <code>{escape(info.sha256[:12])}</code></div>"
    )


def checkpoint_row(info: CheckpointInfo) -> dict[str, Any]:
    """A checkpoint as plain JSON values, for the API; `components` maps each to its hash."""
    return {
        "name": info.name,
        "domain": info.domain,
        "summary": info.summary,
        "sha256": info.sha256,
        "components": {name: entry.hash for name, entry in sorted(info.components.items())},
    }


def short_hash(digest: str) -> str:
    """As much of a hash as tells two apart, or "none"."""
    return digest[:12] if digest else "none"
