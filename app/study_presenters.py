"""Listening studies -> what a researcher sees in the page: HTML fragments. Pure; foreign strings are escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from app.study.definition import Codes, Study
from app.study.preflight import MAX_LOUDNESS_LU, Preflight
from app.study.presets import Preset

CODE_LABELS = {
    "complete": "Code: finished",
    "screened_out": "Code: screened out",
    "no_consent": "Code: did not agree",
    "full": "Code: no place left",
}
"""Field of a study's codes -> what a researcher reads."""

PLATFORM_IDS = "PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"


def participant_path(study_id: str) -> str:
    """Relative to the page."""
    return f"study/{study_id}"


def platform_path(study_id: str) -> str:
    """The participant's address as Prolific wants it: it fills in who comes."""
    return f"{participant_path(study_id)}?{PLATFORM_IDS}"


def owner_path(study_id: str, owner_token: str) -> str:
    """The secret stands after the #, which a browser sends to nobody."""
    return f"study/{study_id}/results#{owner_token}"


def preset_html(preset: Preset) -> str:
    versions = ", ".join(version.name for version in preset.versions)
    return f"<p>{escape(preset.summary)} Compared: {escape(versions)}.</p>"


def preflight_html(study: Study, report: Preflight) -> str:
    """What was checked before the study was kept, and the codes that participants get."""
    (short, long), (soft, loud) = report.num_samples, report.loudness_lufs
    rate_hz = study.clips[0].sample_rate_hz
    rows = [
        ("Clips", f"{report.num_clips}, each with a random name and nothing but its samples"),
        ("Length", f"{short / rate_hz:.3f} s" if short == long else f"{short / rate_hz:.3f} to {long / rate_hz:.3f} s"),
        ("Loudness", f"{soft:.2f} to {loud:.2f} LUFS; at most {MAX_LOUDNESS_LU:g} LU apart"),
        ("Lists of trials", f"{report.num_cells}, for {study.plan.target_sessions} participants"),
        *_code_rows(study.codes),
    ]
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f'<div class="preflight"><h3>Pre-flight passed</h3><dl>{items}</dl></div>'


def _code_rows(codes: Codes) -> list[tuple[str, str]]:
    return [(label, getattr(codes, name)) for name, label in CODE_LABELS.items() if getattr(codes, name)]


def studies_html(studies: Sequence[tuple[Study, str]]) -> str:
    """Every study that is kept here with its links; `studies` are (study, owner's secret)."""
    if not studies:
        return ""
    rows = "".join(
        f"<li><strong>{escape(study.texts.title)}</strong> <span>{escape(study.created_utc[:10])}</span>"
        f'<a href="{escape(participant_path(study.id))}" target="_blank">participants</a>'
        f'<a href="{escape(owner_path(study.id, token))}" target="_blank">results</a></li>'
        for study, token in studies
    )
    return f'<div class="studies"><h3>Studies kept here</h3><ul>{rows}</ul></div>'
