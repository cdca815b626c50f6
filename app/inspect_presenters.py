"""What an inspection found -> what a reader sees: HTML fragments and plain rows. Pure; foreign strings are escaped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from app.dictionary import Heard
from app.pictures import bars_svg, data_uri, mel_png
from app.presenters import checkpoint_row
from app.results import Compared, Inspected, Version
from app.verdict_presenters import facts, headline
from audiolm.audio import spectra
from audiolm.inspection.dictionary import Entry
from audiolm.inspection.seam import PERCENTILE, Seam
from audiolm.inspection.timeline import Timeline, summary

FIGURES = {
    "mel_distance_nats": "mel distance {:.2f} nats",
    "si_sdr_db": "SI-SDR {:.1f} dB",
    "speaker_similarity_to_clip": "speaker {:.2f} like the clip's",
    "speaker_similarity_to_voice": "{:.2f} like the given voice's",
    "seam_flux_percentile": "join above {:.0%} of the prompt's own change",
    "level_step_db": "level {:+.1f} dB at the join",
}
PITCH_CLASSES = ("C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B")
MARKED_HZ = {250: "0.25", 1000: "1", 4000: "4 kHz"}
MIN_BARS = 8  # of durations
ABLATION_NOTES = {
    "full": "All three stages.",
    "no fine stage": "The first four codec levels alone: what voice and timbre lose without detail.",
    "no semantic stage": "The coarse stage goes on without a plan, which it was never trained for.",
    "shuffled semantics": "The same semantic tokens in random order: sound without structure.",
}


# one clip


def inspected_text(inspected: Inspected) -> str:
    """The last line of an inspection."""
    what = (
        "a run of this page, with its own tokens"
        if inspected.made is not None
        else "a recording, read by the tokenizers"
    )
    return f"{inspected.timeline.waveform.duration_s:.1f} s inspected in {inspected.elapsed_s:.1f} s · {what}"


def clip_name(inspected: Inspected, file_name: str) -> str:
    """What to call the clip in a list: a continuation by its number, everything else by its file."""
    made = inspected.made
    return file_name[:24] if made is None else f"Continuation {made.receipt.row + 1}"


def inspected_heading(inspected: Inspected) -> str:
    """Which clip this is, labelled GENERATED where a model made any of it."""
    timeline = inspected.timeline
    label = '<span class="generated-label">GENERATED</span>' if timeline.generated else ""
    lengths = f"{timeline.waveform.duration_s:.1f} s"
    if timeline.prompt_s:
        lengths = f"{timeline.prompt_s:.1f} s prompt + {timeline.waveform.duration_s - timeline.prompt_s:.1f} s"
    return (
        f'<div class="heading"><h2>{"Continuation" if inspected.made is not None else "Recording"}</h2>{label}'
        f'<span class="lengths">{lengths} · as {escape(inspected.checkpoint.name)} hears it</span></div>'
    )


def doubt_html(timeline: Timeline) -> str:
    """How much each stage doubted the tokens, as a table, by prompt and continuation where there are both."""
    lanes = summary(timeline)["lanes"]
    parts = ("prompt", "continuation") if timeline.prompt_s else ("whole",)
    head = "".join(f'<th scope="colgroup" colspan="3">{part}</th>' for part in parts)
    columns = "<th>surprisal</th><th>entropy</th><th>top 1</th>" * len(parts)
    rows = "".join(
        f'<tr><th scope="row"><span class="key {lane["family"]}">{escape(lane["label"])}</span></th>'
        + "".join(_doubt_cells(lane[part]) for part in parts)
        + "</tr>"
        for lane in lanes
    )
    return (
        '<div class="doubt-table"><table><caption>Doubt of the stages: mean surprisal of a token and mean entropy of '
        "what was expected, in nats at temperature 1, and how often the token was the likeliest one</caption>"
        f"<thead><tr><td></td>{head}</tr><tr><td></td>{columns}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _doubt_cells(figures: dict[str, Any]) -> str:
    if "mean_nats" not in figures:
        return "<td>–</td><td>–</td><td>–</td>"
    numbers = (f"{figures['mean_nats']:.2f}", f"{figures['mean_entropy_nats']:.2f}", f"{figures['rank_0_share']:.0%}")
    return "".join(f"<td>{number}</td>" for number in numbers)


def seam_html(seam: Seam | None) -> str:
    """The seam meter: spectral change at the join among the prompt's own, and the step in level. "" without a join."""
    if seam is None:
        return ""
    place, limit = 100 * seam.flux_percentile, 100 * PERCENTILE
    words = "does not stand out" if seam.seamless else "stands out"
    return (
        f'<div class="seam"><p class="words"><strong>The join {words}</strong> · change above {place:.0f} % of the '
        f"prompt's own, limit {limit:.0f} % · level {seam.level_step_db:+.1f} dB</p>"
        f'<div class="meter" role="img" aria-label="spectral change at the join: above {place:.0f} percent of the '
        f"prompt's own, limit {limit:.0f} percent\">"
        f'<span class="needle" style="left:{place:.1f}%"></span>'
        f'<span class="threshold" style="left:{limit:.1f}%"></span></div>'
        '<div class="ends" aria-hidden="true"><span>calm</span><span>abrupt</span></div></div>'
    )


def inspected_row(inspected: Inspected) -> dict[str, Any]:
    """An inspection as plain JSON values, for the API."""
    return {
        "status": "done",
        "checkpoint": checkpoint_row(inspected.checkpoint),
        "seconds": round(inspected.elapsed_s, 3),
        **summary(inspected.timeline),
    }


# one token


def entry_html(entry: Entry, num_clips: int, domain: str) -> str:
    """A token's entry in the dictionary, read off the open clips."""
    where = "semantic" if entry.family == "semantic" else f"{entry.family}, level {entry.level}"
    times, clips = len(entry.occurrences), f"{num_clips} open clip{'s' * (num_clips != 1)}"
    facts = (
        f"{times} time{'s' * (times != 1)} in {clips}, {entry.share:.1%} of the positions; "
        f"{1000 * entry.mean_duration_s:.0f} ms long on average"
    )
    return (
        f'<div class="entry"><h3><span class="key {entry.family}">{where}</span> token {entry.token}</h3><p>{facts}</p>'
        f'<div class="pictures">{_durations(entry)}{_profile(entry, domain)}</div>'
        f"{_neighbours('Before it', entry.preceders)}{_neighbours('After it', entry.followers)}</div>"
    )


def _durations(entry: Entry) -> str:
    """Bars of how many runs had each length, in positions."""
    longest = max((length for length, _ in entry.durations), default=1)
    num_bars = max(longest, MIN_BARS)
    counts = dict(entry.durations)
    step_ms = 40 if entry.family == "semantic" else 20
    marks = {0: f"{step_ms}", num_bars - 1: f"{num_bars * step_ms} ms"}
    bars = bars_svg([counts.get(length, 0) for length in range(1, num_bars + 1)], marks, "durations of its runs")
    return f"<figure><figcaption>How long</figcaption>{bars}</figure>"


def _profile(entry: Entry, domain: str) -> str:
    """Pitch classes for piano, the spectrum for speech."""
    if domain == "piano" and entry.pitch_classes is not None:
        shares = entry.pitch_classes.tolist()
        strongest = PITCH_CLASSES[int(np.argmax(shares))]
        bars = bars_svg(shares, dict(enumerate(PITCH_CLASSES)), f"energy by pitch class, most at {strongest}")
        return f"<figure><figcaption>Pitch classes where it sounds</figcaption>{bars}</figure>"
    if entry.mel_profile is None:
        return ""
    mel = entry.mel_profile.numpy()
    centres = spectra.mel_centres_hz(len(mel)).numpy()
    marks = {int(np.abs(centres - hz).argmin()): text for hz, text in MARKED_HZ.items()}
    bars = bars_svg((mel - mel.min()).tolist(), marks, "mean spectrum where it sounds, in mel bands")
    return f"<figure><figcaption>Spectrum where it sounds</figcaption>{bars}</figure>"


def _neighbours(title: str, counts: Sequence[tuple[int, int]]) -> str:
    if not counts:
        return ""
    items = "".join(f"<li><code>{token}</code> ×{count}</li>" for token, count in counts)
    return f'<div class="neighbours"><span>{title}</span><ul>{items}</ul></div>'


def occurrence_label(heard: Heard, with_name: bool) -> str:
    """Text of the button that plays an occurrence."""
    return f"{heard.name}, " * with_name + f"{heard.occurrence.start_s:.2f} s"


# versions of one clip


def compared_text(compared: Compared) -> str:
    """The last line of a comparison; what belongs beside its scores is the same for all of them."""
    verdict = next((version.verdict for version in compared.versions if version.verdict is not None), None)
    notes = [*compared.notes, *([] if verdict is None else [f"Detector's scores: {facts(verdict)}"])]
    return " · ".join([f"{len(compared.versions)} versions by {compared.checkpoint.name}", *notes])


def version_rows(compared: Compared) -> list[dict[str, Any]]:
    """What the switch shows of each version, but for its sound."""
    return [
        {
            "label": version.label,
            "generated": version.generated,
            "figures": _figures(version),
            "note": ABLATION_NOTES.get(version.label, "") if compared.kind == "ablations" else "",
            "picture": data_uri(mel_png(version.waveform)),
            "alt": f"mel spectrogram, {version.label}",
        }
        for version in compared.versions
    ]


def _figures(version: Version) -> list[str]:
    shown = [FIGURES[name].format(value) for name, value in version.figures.items() if value is not None]
    if version.verdict is not None:
        shown.append(f"detector: {headline(version.verdict)}")
    return shown


def compared_row(compared: Compared) -> dict[str, Any]:
    """Versions as plain JSON values, for the API."""
    return {
        "status": "done",
        "checkpoint": checkpoint_row(compared.checkpoint),
        "prompt_s": compared.prompt_s,
        "notes": list(compared.notes),
        "versions": [
            {
                "label": version.label,
                "generated": version.generated,
                **version.figures,
                "verdict": None if version.verdict is None else version.verdict.to_dict(),
                "receipt": None if version.receipt is None else json.loads(version.receipt.to_json()),
            }
            for version in compared.versions
        ],
    }
