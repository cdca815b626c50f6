"""C1: how much of the sound the codec keeps, by number of quantizer levels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from audiolm.audio.distortion import mel_distance, si_sdr_db
from audiolm.config import FRAME_RATE_HZ, SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Figure, RowReport
from audiolm.evaluation.statistics import mean_interval

TITLE = "Codec on the hold-out, by number of quantizer levels"
TARGETS = {
    "speech": "at the most levels STOI >= 0.90 and PESQ-wb >= 2.5, PESQ-wb rising from 2 levels on",
    "piano": "mel distance at the most levels under half of that at 1 level",
}
LEVELS = (1, 2, 4, 8, 12)
NUM_ITEMS = 40
MAX_S = 10.0
LINE_FFT = SAMPLE_RATE_HZ // 5  # bins of 5 Hz, so that every multiple of 50 Hz is one
LINE_FROM_HZ = 4000.0
_LINE_NEIGHBOURS = (-5, -4, -3, 3, 4, 5)  # bins: 15 to 25 Hz away, outside the Hann window's main lobe
_LINE_FLOOR = 1e-14  # power; digital silence has no lines

Metric = Callable[[Tensor, Tensor], float | None]


def stoi(output: Tensor, original: Tensor) -> float:
    """Short-time objective intelligibility of [T] at 16 kHz, 0..1 (C. Taal et al., 2011; package pystoi).

    Raises EvaluationError where the package is missing or less than about 0.4 s of the original is active.
    """
    try:
        import pystoi
    except ImportError as error:
        raise EvaluationError("STOI needs the package pystoi (extra `eval`)") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is raised below
        value = float(pystoi.stoi(original.numpy(), output.numpy(), SAMPLE_RATE_HZ))
    if value <= 1e-5:  # what pystoi answers where too few frames are active
        raise EvaluationError("STOI needs at least 0.4 s of active speech")
    return value


def pesq_wb(output: Tensor, original: Tensor) -> float:
    """Wideband PESQ of [T] at 16 kHz, 1.04..4.64 MOS-LQO (ITU-T P.862.2; package pesq).

    Raises EvaluationError where the package is missing or finds no utterance.
    """
    try:
        from pesq import PesqError, pesq
    except ImportError as error:
        raise EvaluationError("PESQ needs the package pesq (extra `eval`)") from error
    try:
        with np.errstate(invalid="ignore"):  # it divides by the peak, which silence has not
            return float(pesq(SAMPLE_RATE_HZ, original.numpy(), output.numpy(), "wb"))
    except PesqError as error:
        raise EvaluationError(f"PESQ found nothing to measure ({error})") from error


def line_height_db(waveform: Tensor) -> float:
    """Height in dB of spectral lines at multiples of the frame rate (50 Hz) above 4 kHz: a metallic buzz.

    [T] at 16 kHz, at least 0.2 s. Mean over time and over the multiples of (level at the multiple - mean level 15 to
    25 Hz beside it); 0 for any sound whose long-term spectrum is smooth there.

    Raises EvaluationError for a shorter signal.
    """
    if waveform.shape[0] < LINE_FFT:
        raise EvaluationError(f"line height needs at least {LINE_FFT} samples, found {waveform.shape[0]}")
    window = torch.hann_window(LINE_FFT, dtype=torch.float64)
    spectra = torch.stft(waveform.double(), LINE_FFT, LINE_FFT // 2, window=window, center=False, return_complex=True)
    level_db = (10.0 * torch.log10(spectra.abs().square() / LINE_FFT + _LINE_FLOOR)).mean(dim=1)
    bins_per_line = LINE_FFT * FRAME_RATE_HZ // SAMPLE_RATE_HZ
    first = int(LINE_FROM_HZ) // FRAME_RATE_HZ + 1
    lines = torch.arange(first, SAMPLE_RATE_HZ // 2 // FRAME_RATE_HZ) * bins_per_line
    beside = torch.stack([level_db[lines + offset] for offset in _LINE_NEIGHBOURS]).mean(dim=0)
    return float((level_db[lines] - beside).mean())


METRICS: dict[str, Metric] = {
    "STOI": stoi,
    "PESQ-wb": pesq_wb,
    "mel distance (nats)": mel_distance,
    "SI-SDR (dB)": lambda output, original: float(si_sdr_db(output, original)),
    "line height (dB)": lambda output, original: line_height_db(output),
}
SPEECH_METRICS = ("STOI", "PESQ-wb")


def measure(inputs: Inputs) -> RowReport:
    """Raises EvaluationError without a codec or recordings."""
    inputs.subject.require("codec")
    codec, items = inputs.subject.codec, inputs.holdout.items(NUM_ITEMS)
    levels = [level for level in LEVELS if level < codec.num_levels] + [codec.num_levels]
    metrics = {name: m for name, m in METRICS.items() if inputs.domain == "speech" or name not in SPEECH_METRICS}
    values: dict[tuple[str, int], list[float | None]] = {(name, level): [] for name in metrics for level in levels}
    lines, reasons = [], dict[str, str]()
    for item in inputs.progress(items, "C1"):
        original = inputs.holdout.waveform(item, MAX_S)
        lines.append(line_height_db(original))
        codes = codec.encode(original[None])
        for level in levels:
            output = codec.decode(codes[..., :level])[0, : original.shape[0]]
            for name, metric in metrics.items():
                values[name, level].append(_value(metric, output, original, name, reasons))
    figures = []
    for name in metrics:
        for level in levels:
            figures.append(_figure(f"{name}, {level} level{'s' * (level > 1)}", values[name, level], reasons.get(name)))
    figures.append(Figure.of("line height (dB), originals", mean_interval(lines)))
    notes = [f"the first {MAX_S:g} s of each of {len(items)} items, evenly over speakers or pieces"]
    notes += [f"{name} is missing for some items: {reason}" for name, reason in reasons.items()]
    report = RowReport("C1", TITLE, TARGETS[inputs.domain], tuple(figures), notes=tuple(notes))
    return replace(report, met=_judge(report, inputs.domain, levels))


def _value(metric: Metric, output: Tensor, original: Tensor, name: str, reasons: dict[str, str]) -> float | None:
    try:
        return metric(output, original)
    except EvaluationError as error:
        reasons[name] = str(error)
        return None


def _figure(name: str, values: list[float | None], reason: str | None) -> Figure:
    if all(value is None for value in values):
        return Figure(name, None, reason=reason or "no item gave a value")
    return Figure.of(name, mean_interval(values))


def _judge(report: RowReport, domain: str, levels: list[int]) -> bool | None:
    @lru_cache
    def at(name: str, level: int) -> float | None:
        return report.figure(f"{name}, {level} level{'s' * (level > 1)}").value

    top = levels[-1]
    if domain == "piano":
        return top > 1 and at("mel distance (nats)", top) < 0.5 * at("mel distance (nats)", 1)
    rising = [at("PESQ-wb", level) for level in levels if level > 1]
    if at("STOI", top) is None or None in rising or not rising:
        return None
    return at("STOI", top) >= 0.90 and rising[-1] >= 2.5 and all(a < b for a, b in pairwise(rising))
