"""What detector and watermark say of a sound -> what a reader sees: HTML and plain rows. Pure; foreign strings are
escaped."""

from __future__ import annotations

import json
from dataclasses import asdict
from html import escape
from typing import Any

from torch.nn import functional as F

from app.presenters import checkpoint_row, short_hash
from app.results import Hearing, Judged
from app.tracks import track_html
from audiolm.detector import Verdict
from audiolm.intervals import wilson_interval
from audiolm.receipt import Receipt
from audiolm.watermark import MarkResult

FOUND = (
    "Other software uses this mark too, and it is now and then found where there is none: it speaks for a machine "
    "having made some of this sound, not for which one."
)
NOT_FOUND = "That proves nothing: a sound may never have been marked, or for a few seconds only, or have lost its mark."
CONTROL = (
    "The recording encoded and decoded by the checkpoint's codec. The detector should hear generation and not the "
    "codec: its answer should stay."
)
SALIENCY_BANDS = 16  # in the API's row


# the detector


def verdict_html(verdict: Verdict | None) -> str:
    """The answer; the score against its threshold; error rates with their n; what it holds for; which model said it.
    A checkpoint without a detector has no verdict."""
    if verdict is None:
        return '<div class="verdict"><p class="words">Detector: <strong>this checkpoint has none</strong></p></div>'
    score = "" if verdict.probability is None else f"Score {100 * verdict.probability:.1f} % generated. "
    return (
        f'<div class="verdict"><p class="words">Detector: <strong class="answer {escape(verdict.label)}">'
        f"{escape(headline(verdict))}</strong></p>{_meter(verdict)}"
        f'<p class="scope">{score}{escape(facts(verdict))}</p></div>'
    )


def headline(verdict: Verdict) -> str:
    """ "Generated, 97 %", "Original, 99 %" (the probability of what is said), "Generated from 3.1 s on, 97 %" (what
    comes after the likely boundary was judged), "Uncertain, 55 % generated", "Withheld: too short …"."""
    probability = verdict.probability
    if probability is None:
        return f"Withheld: {verdict.reason}"
    part = f" from {verdict.judged_from_s:.1f} s on" if verdict.judged_from_s else ""
    if verdict.label == "uncertain":
        return f"Uncertain{part}, {percent(probability)} generated"
    sure = probability if verdict.label == "generated" else 1 - probability
    return f"{verdict.label.capitalize()}{part}, {percent(sure)}"


def percent(probability: float) -> str:
    """In whole percent; what rounds to certainty is not called certain."""
    if probability >= 0.995:
        return "over 99 %"
    return "under 1 %" if probability < 0.005 else f"{100 * probability:.0f} %"


def facts(verdict: Verdict) -> str:
    """What belongs beside every score, in sentences: threshold, error rates, scope and the model's hash."""
    return (
        f"Threshold {100 * verdict.threshold:.1f} %. {error_rates(verdict)} {_sentence(verdict.scope)} "
        f"Detector {short_hash(verdict.model_sha256)}."
    )


def error_rates(verdict: Verdict) -> str:
    """How often the threshold errs on held-out clips, with the numbers of clips and 95 % intervals."""
    parts = [
        f"{100 * rate:.1f} % of {count:,} {what} (95 % interval {_interval(rate, count)})"
        for rate, count, what in (
            (verdict.false_positive_rate, verdict.num_originals, "originals called generated"),
            (verdict.false_negative_rate, verdict.num_generated, "generated ones missed"),
        )
        if rate is not None and count
    ]
    if not parts:
        return "Its error rates have not been measured."
    length = "" if verdict.measured_s is None else f" of {verdict.measured_s:g} s"
    return f"On held-out clips{length}: {', '.join(parts)}."


def _meter(verdict: Verdict) -> str:
    if verdict.probability is None:
        return ""
    score, threshold = 100 * verdict.probability, 100 * verdict.threshold
    return (
        f'<div class="meter" role="img" aria-label="score {score:.1f} percent, threshold {threshold:.1f} percent">'
        f'<span class="needle" style="left:{score:.1f}%"></span>'
        f'<span class="threshold" style="left:{threshold:.1f}%"></span>'
        '</div><div class="ends" aria-hidden="true"><span>original</span><span>generated</span></div>'
    )


def _interval(rate: float, count: int) -> str:
    low, high = wilson_interval(rate * count, count)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


# marks


def carried_html(receipt: Receipt, mark: MarkResult | None) -> str:
    """Whether a continuation was marked, and whether that mark is found again: not all sound takes it."""
    if mark is None:
        return '<p class="mark">Watermark: <strong>none</strong></p>'
    if mark.found:
        return f'<p class="mark">Watermark: <strong>yes</strong>, {escape(receipt.watermark)}, {_searched(mark)}</p>'
    return (
        f'<p class="mark">Watermark: <strong>added in vain</strong>, {escape(receipt.watermark)} is not found again, '
        f"{_searched(mark)}</p>"
    )


def mark_html(mark: MarkResult) -> str:
    """What the search for a watermark found, and what that is worth."""
    if mark.reason:
        said, worth = f"<strong>not looked for</strong>: {_searched(mark)}", ""
    elif mark.found:
        said, worth = f"<strong>found</strong>, {_searched(mark)}", FOUND
    else:
        said, worth = f"<strong>not found</strong>, {_searched(mark)}", NOT_FOUND
    return f'<p class="mark">Watermark: {said}. <span class="worth">{worth}</span></p>'


def _searched(mark: MarkResult) -> str:
    return escape(mark.reason) or f"{mark.confidence:.2f} against a threshold of {mark.threshold:.2f}"


def _receipt_html(receipt: Receipt | None) -> str:
    if receipt is None:
        return ""
    return (
        f'<p class="mark">Receipt: <strong>found</strong> in the file, which says that {escape(receipt.checkpoint)} '
        f"generated it on {escape(receipt.created_utc[:10])}, seed {receipt.request.seed}.</p>"
    )


# a recording and its control


def judged_text(judged: Judged) -> str:
    """The last line of a run."""
    duration_s = judged.recording.waveform.duration_s
    return f"{duration_s:.1f} s judged in {judged.elapsed_s:.1f} s by the detector of {judged.checkpoint.name}"


def recording_html(judged: Judged) -> str:
    """The recording's card: verdict, watermark, receipt, track."""
    generated = judged.receipt is not None
    return (
        f"{_heading('The recording', generated)}{verdict_html(judged.recording.verdict)}"
        f"{mark_html(judged.mark)}{_receipt_html(judged.receipt)}{_track(judged.recording, 'the recording')}"
    )


def control_html(judged: Judged) -> str:
    """The control's card: verdict, and whether the codec alone changes it; or why there is no control."""
    heading = _heading("The same through the codec", judged.receipt is not None)
    if judged.control is None:
        return f'{heading}<p class="mark">There is no control: {escape(judged.no_control)}</p>'
    return (
        f"{heading}{verdict_html(judged.control.verdict)}"
        f'<p class="mark">{agreement(judged.recording.verdict, judged.control.verdict)} '
        f'<span class="worth">{CONTROL}</span></p>{_track(judged.control, "the recording through the codec")}'
    )


def agreement(recording: Verdict, control: Verdict) -> str:
    """What the control says of the recording's verdict."""
    if "withheld" in (recording.label, control.label):
        return "Nothing to compare: " + ("both are" if recording.label == control.label else "one is") + " withheld."
    if recording.label == control.label == "uncertain":
        return "<strong>Uncertain</strong> both times."
    if recording.label == control.label:
        return "<strong>Same answer</strong> through the codec."
    return "<strong>Another answer</strong> through the codec alone: take both with doubt."


def _heading(title: str, generated: bool) -> str:
    label = '<span class="generated-label">GENERATED</span>' if generated else ""
    return f'<div class="heading"><h2>{title}</h2>{label}</div>'


def _track(heard: Hearing, name: str) -> str:
    return track_html(heard.waveform, heard.verdict, heard.saliency, name)


def judged_row(judged: Judged) -> dict[str, Any]:
    """A judged recording as plain JSON values, for the API: its verdict's fields, and everything else by name."""
    return {
        "status": "done",
        "checkpoint": checkpoint_row(judged.checkpoint),
        "seconds": round(judged.elapsed_s, 3),
        "duration_s": judged.recording.waveform.duration_s,
        **_hearing_row(judged.recording),
        "watermark": asdict(judged.mark),
        "receipt": None if judged.receipt is None else json.loads(judged.receipt.to_json()),
        "control": {"reason": judged.no_control} if judged.control is None else _hearing_row(judged.control),
    }


def _hearing_row(heard: Hearing) -> dict[str, Any]:
    """The verdict, and saliency [bands][segments] between -1 and 1, bands from low to high."""
    saliency = None
    if heard.saliency is not None:
        size = (SALIENCY_BANDS, len(heard.verdict.segment_times_s))
        pooled = F.adaptive_avg_pool2d(heard.saliency[None].float(), size)[0]
        saliency = (pooled / pooled.abs().max().clamp_min(1e-12)).cpu().numpy().round(3).tolist()
    return {**heard.verdict.to_dict(), "headline": headline(heard.verdict), "saliency": saliency}
