"""Pictures of the detector for papers and model cards: DET curves, calibration, score by length. No pyplot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from audiolm.evaluation.detection.discrimination import SHORTER_S
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.judging import Judged
from audiolm.evaluation.detection.scores import NUM_BINS, calibration_error, det_curve, equal_error_rate, reliability
from audiolm.evaluation.statistics import grouped_rate, rate_interval

SIZE_IN, DPI = (5.2, 4.4), 130
COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#000000")  # Okabe and Ito's; the last is the longest clip's
GENERATED, ORIGINAL = "#d55e00", "#0072b2"
TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
NUM_SCORE_BINS = 30

Drawing = Callable[[Figure, dict[float, Judged]], None]


def write_pictures(inputs: DetectionInputs, folder: Path) -> list[dict[str, str]]:
    """Writes PNG files; -> {file, caption} of each, as the facts of a model card have them."""
    whole_s = inputs.whole_s
    judged = {seconds: inputs.judged(seconds) for seconds in (*(s for s in SHORTER_S if s < whole_s), whole_s)}
    folder.mkdir(parents=True, exist_ok=True)
    return [
        {"file": _save(draw, judged, folder / name).name, "caption": _caption(text, judged[whole_s])}
        for name, (draw, text) in PICTURES.items()
    ]


def draw_det(figure: Figure, judged: dict[float, Judged]) -> None:
    """Misses over false alarms by clip length, both on the scale of a normal deviate; dots: the decision threshold."""
    axes = figure.subplots()
    least = 0.5 / min(int(one.generated.sum()) for one in judged.values())
    for colour, (seconds, one) in zip(_colours(judged), judged.items(), strict=True):
        curve = det_curve(one.log_odds, one.generated)
        label = f"{seconds:g} s, EER {100 * equal_error_rate(one.log_odds, one.generated):.1f} %"
        axes.step(_deviate(curve.alarms, least), _deviate(curve.misses, least), color=colour, label=label)
        alarms, misses = one.called[~one.generated].mean(), (~one.called[one.generated]).mean()
        axes.plot(_deviate(alarms, least), _deviate(misses, least), "o", color=colour)
    ticks = [tick for tick in TICKS if tick >= least]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(ticks), [f"{100 * tick:g}" for tick in ticks])
    limits = ndtri(least) - 0.1, ndtri(0.6)
    axes.set(xlim=limits, ylim=limits, xlabel="originals called generated (%)", ylabel="generated clips missed (%)")
    axes.plot(limits, limits, color="0.8", linewidth=0.8, zorder=0)
    axes.legend(frameon=False)


def draw_calibration(figure: Figure, judged: dict[float, Judged]) -> None:
    """Share of generated clips over the probability given, whole clips; how many clips there are below."""
    seconds, one = max(judged.items())
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    means, shares, total = reliability(one.probabilities, one.generated)
    bins = np.minimum((one.probabilities * NUM_BINS).astype(int), NUM_BINS - 1)
    for index in np.flatnonzero(total):
        interval = rate_interval(one.generated[bins == index])
        above.plot([means[index]] * 2, [interval.low, interval.high], color="0.6")
    above.plot([0, 1], [0, 1], color="0.8", linewidth=0.8, zorder=0)
    error = calibration_error(one.probabilities, one.generated)
    above.plot(means[total > 0], shares[total > 0], "o", color=COLOURS[-1], label=f"{seconds:g} s, ECE {error:.3f}")
    above.set(ylabel="share that was generated", ylim=(-0.03, 1.03))
    above.legend(frameon=False, loc="upper left")
    edges = np.linspace(0, 1, NUM_BINS + 1)
    kinds, colours = [one.probabilities[~one.generated], one.probabilities[one.generated]], [ORIGINAL, GENERATED]
    below.hist(kinds, edges, stacked=True, color=colours, label=["originals", "generated"])
    below.set(xlabel="probability of generated", ylabel="clips", xlim=(0, 1))
    below.legend(frameon=False)


def draw_lengths(figure: Figure, judged: dict[float, Judged]) -> None:
    """Scores of both kinds by clip length, and accuracy and share decided below."""
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))
    reach = max(float(np.abs(one.log_odds).max()) for one in judged.values())
    edges = np.linspace(-reach, reach, NUM_SCORE_BINS + 1)
    for row, one in enumerate(judged.values()):
        counts = {kind: np.histogram(one.log_odds[one.generated == kind], edges)[0] for kind in (False, True)}
        most = max(count.max() for count in counts.values())
        for kind, colour in ((False, ORIGINAL), (True, GENERATED)):
            name = ("generated" if kind else "originals") if row == 0 else None
            above.stairs(row + 0.9 * counts[kind] / most, edges, baseline=row, fill=True, alpha=0.6, color=colour,
                         label=name)  # fmt: skip
    threshold = next(iter(judged.values())).threshold
    above.axvline(np.log(threshold / (1 - threshold)), color="0.3", linewidth=0.8)
    above.set(xlabel="score (log odds); line: the threshold")
    above.set_yticks(np.arange(len(judged)) + 0.4, [f"{seconds:g} s" for seconds in judged])
    above.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    for name, colour, values in (
        ("accuracy", COLOURS[-1], [grouped_rate(one.right, one.groups) for one in judged.values()]),
        ("decided", COLOURS[0], [grouped_rate(one.decided, one.groups) for one in judged.values()]),
    ):
        places = np.arange(len(judged)) + (0.06 if name == "decided" else -0.06)
        spread = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
        below.errorbar(places, [v.value for v in values], yerr=spread, fmt="o", color=colour, label=name)
    below.set_xticks(range(len(judged)), [f"{seconds:g} s" for seconds in judged])
    below.set(ylabel="share of clips", xlabel="length of the clip")
    below.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))


PICTURES: dict[str, tuple[Drawing, str]] = {
    "detector-det.png": (draw_det, "Detector: errors of both kinds at every threshold, by clip length"),
    "detector-calibration.png": (draw_calibration, "Detector: does its probability mean what it says?"),
    "detector-length.png": (draw_lengths, "Detector: scores and accuracy by clip length"),
}


def _save(draw: Drawing, judged: dict[float, Judged], path: Path) -> Path:
    figure = Figure(SIZE_IN, dpi=DPI, layout="constrained")
    draw(figure, judged)
    for axes in figure.axes:
        _plain(axes)
    figure.savefig(path)
    return path


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _colours(judged: dict[float, Judged]) -> Sequence[str]:
    return COLOURS[-len(judged) :]


def _deviate(rates: np.ndarray | float, least: float) -> np.ndarray:
    """Rates that no clip can show are drawn at half of one clip."""
    return ndtri(np.clip(rates, least, 1.0 - least))


def _caption(text: str, whole: Judged) -> str:
    return f"{text}; {len(whole) // 2} hold-out pairs of {len(set(whole.groups))} speakers or pieces"
