"""A judged sound as a picture that takes the page's own width and colours: the spectrogram with what spoke for and
against "generated", below it the detector's score over time, through both the likely boundary. HTML and SVG; pure."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from app.pictures import data_uri, mel_png, saliency_png
from audiolm.audio import spectra
from audiolm.detector import Verdict
from audiolm.inspection.figures import MEL_BANDS
from audiolm.streams import Waveform

MARKED_HZ = {250: "0.25", 1000: "1", 4000: "4 kHz"}
TICK_STEPS_S = (0.1, 0.25, 0.5, 1, 2, 5, 10)
MAX_TICKS = 8  # more do not fit a telephone
CHOICE = (
    '<label class="choice"><input type="checkbox" checked><span>Show what spoke for '
    '<span class="key for">generated</span> and <span class="key against">original</span></span></label>'
)
ENDS = '<div class="ends" aria-hidden="true"><span>generated</span><span>original</span></div>'
COURSE_NOTE = "Read the course of the score over time, not its values: each is of about one second."


def track_html(waveform: Waveform, verdict: Verdict, saliency: Tensor | None, name: str) -> str:
    """`saliency` [mels, frames] covers the sound, positive where it spoke for "generated"; None: there is none.
    `name` is what the sound is called in words."""
    boundary = _boundary(verdict, waveform.duration_s)
    overlay = "" if saliency is None else f'<img class="saliency" src="{data_uri(saliency_png(saliency))}" alt="">'
    course = f'{ENDS}<div class="course">{_course(verdict, waveform.duration_s)}{boundary}</div>'
    return (
        f'<figure class="track">{CHOICE if overlay else ""}<div class="picture">'
        f'<div class="bands" aria-hidden="true">{_bands()}</div><div class="mel">'
        f'<img src="{data_uri(mel_png(waveform))}" alt="{in_words(waveform, verdict, saliency is not None, name)}">'
        f"{overlay}{boundary}</div>{course if verdict.segment_probabilities else ''}"
        f'<div class="axis" aria-hidden="true">{_axis(waveform.duration_s)}</div></div>'
        f"<figcaption>{_caption(verdict)}</figcaption></figure>"
    )


def in_words(waveform: Waveform, verdict: Verdict, with_saliency: bool, name: str) -> str:
    """The picture for those who do not see it."""
    coloured = ", coloured where it spoke for generated or for original" * with_saliency
    sentences = [f"Mel spectrogram of {name}, {waveform.duration_s:.1f} s{coloured}"]
    if scores := verdict.segment_probabilities:
        low, high = int(np.argmin(scores)), int(np.argmax(scores))
        least, most = (f"{scores[n]:.0%} at {verdict.segment_times_s[n]:.1f} s" for n in (low, high))
        sentences.append(f"Score over time: least {least}, most {most}")
    if verdict.boundary_s is not None:
        sentences.append(f"{verdict.boundary_name.capitalize()} at {verdict.boundary_s:.1f} s")
    return ". ".join(sentences)


def _caption(verdict: Verdict) -> str:
    if not verdict.segment_probabilities:
        return "No score over time: the verdict is withheld."
    if verdict.boundary_s is None:
        return f"No boundary: no place was found where an original becomes generated. {COURSE_NOTE}"
    place = f"{verdict.boundary_name.capitalize()} at {verdict.boundary_s:.1f} s"
    sounds = "sounds" if verdict.label == "generated" else "may be"
    return f"<strong>{place}</strong>: it {sounds} original before, generated after. {COURSE_NOTE}"


def _course(verdict: Verdict, duration_s: float) -> str:
    """The score as a line in seconds across and from 1 at the top to 0, and the threshold."""
    pairs = zip(verdict.segment_times_s, verdict.segment_probabilities, strict=True)
    points = " ".join(f"{time_s:.2f},{1 - score:.4f}" for time_s, score in pairs)
    level = 1 - verdict.threshold
    return (
        f'<svg viewBox="0 0 {duration_s:.3f} 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<line class="threshold" x1="0" x2="{duration_s:.3f}" y1="{level:.4f}" y2="{level:.4f}"/>'
        f'<polyline points="{points}"/></svg>'
    )


def _boundary(verdict: Verdict, duration_s: float) -> str:
    if verdict.boundary_s is None:
        return ""
    return f'<span class="boundary" style="left:{100 * verdict.boundary_s / duration_s:.2f}%"></span>'


def _bands() -> str:
    """Frequencies at their places among the mel bands."""
    centres_hz = spectra.mel_centres_hz(MEL_BANDS).numpy()
    places = {text: np.interp(hz, centres_hz, np.arange(MEL_BANDS) + 0.5) / MEL_BANDS for hz, text in MARKED_HZ.items()}
    return "".join(f'<span style="bottom:{100 * place:.1f}%">{text}</span>' for text, place in places.items())


def _axis(duration_s: float) -> str:
    step_s = next((step_s for step_s in TICK_STEPS_S if duration_s / step_s < MAX_TICKS), TICK_STEPS_S[-1])
    ticks = [n * step_s for n in range(int(duration_s / step_s) + 1)]
    return "".join(
        f'<span style="left:{100 * tick_s / duration_s:.2f}%">{tick_s:g}{" s" * (tick_s == ticks[-1])}</span>'
        for tick_s in ticks
    )
