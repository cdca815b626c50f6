"""Pictures of clips for papers and pages: the timeline, spectrograms, the ladder, the piano roll. Pure; no pyplot.

Figures have no background and neutral gray text, so that they sit on a light and on a dark page alike. The three token
families have one hue each (Okabe and Ito's orange, blue and green, told apart by every common kind of colour vision);
within a family the lightness tells ids apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from audiolm.audio import spectra
from audiolm.detector import Verdict
from audiolm.inspection.pianoroll import Roll
from audiolm.inspection.saliency import painted
from audiolm.inspection.seam import Seam
from audiolm.inspection.timeline import Timeline, TokenLane
from audiolm.streams import Waveform

INK = "#7a808a"  # contrast about 4:1 on white and on Gradio's dark page
PROMPT_LINE = "#a3a8b0"
SCORE = "#cc79a7"
BOUNDARY = "#e8590c"
NOTE = "#e06a1b"
MEL_BANDS = 80
MEL_FFT = 1024
MEL_HOP = 160
MEL_RANGE = 8.0  # natural-log units (about 70 dB) shown below the loudest cell
SMOOTHING_S = 0.2  # at least, or a 60th of the clip: surprisal and entropy jump from token to token
FIGURE_WIDTH_IN = 7.6
FIGURE_DPI = 150
MARGINS_IN = {"left": 1.16, "right": 0.12, "top": 0.26, "bottom": 0.3}
LINE_IN = 0.17  # of the small print below
GAP_IN = 0.07
TEXT_PT, SMALL_PT = 8.5, 7.5
FAMILIES = {
    "semantic": LinearSegmentedColormap.from_list("semantic", ["#fdf0d0", "#f0b840", "#e69f00", "#a86400", "#4d2c00"]),
    "coarse": LinearSegmentedColormap.from_list("coarse", ["#d9eefa", "#86c6ec", "#56b4e9", "#0072b2", "#002c47"]),
    "fine": LinearSegmentedColormap.from_list("fine", ["#dcf3ea", "#6fcdaa", "#009e73", "#00674b", "#00291e"]),
}
FAMILY_LINES = {"semantic": "#d98a00", "coarse": "#2f8fd0", "fine": "#0b9a70"}

Panel = tuple[float, Callable[[Axes], None]]
"""Height in inches, and what draws it."""


def shades(ids: np.ndarray) -> np.ndarray:
    """Token ids -> lightness places in [0, 1): multiples of the golden ratio, so neighbouring ids lie far apart.
    One id has one shade wherever it occurs."""
    return np.mod(ids.astype(np.float64) * 0.6180339887498949, 1.0)


def timeline_figure(timeline: Timeline) -> Figure:
    """All there is of a clip on one axis of seconds: waveform, mel spectrogram, piano roll, token lanes, surprisal by
    family and the detector's lane, with a gray line where the prompt ends; below it the seam's figures and the lanes'
    notes.
    """
    panels = list(_panels(timeline))
    figure, axes = _stack([height for height, _ in panels], LINE_IN * len(_small_print(timeline)))
    for axis, (_, draw) in zip(axes, panels, strict=True):
        draw(axis)
    _finish(axes, timeline.waveform.duration_s)
    if timeline.prompt_s > 0:
        _mark_prompt_end(axes, timeline.prompt_s, "generated" if timeline.generated else "original")
    elif timeline.generated:
        _write(axes[0], "generated", (0.0, 1.0), (6, 3), "left", "bottom")
    for number, line in enumerate(_small_print(timeline)):
        _write(axes[-1], line, (0.0, 0.0), (0, -20 - 72 * LINE_IN * number), "left", "top", SMALL_PT)
    return figure


def score_figure(waveform: Waveform, verdict: Verdict, saliency: Tensor | None = None) -> Figure:
    """Mel spectrogram, what in it spoke for (pink) and against (green) "generated", and the detector's probability over
    time with its threshold; a line through them at the likely boundary. What there is not is left out."""
    panels: list[Panel] = [(1.5, partial(_draw_mel, waveform))]
    if saliency is not None:
        panels.append((1.5, partial(_draw_saliency, waveform, saliency)))
    if verdict.segment_probabilities:
        panels.append((0.9, partial(_draw_score, verdict, 0.0)))
    figure, axes = _stack([height for height, _ in panels])
    for axis, (_, draw) in zip(axes, panels, strict=True):
        draw(axis)
        if verdict.boundary_s is not None:
            axis.axvline(verdict.boundary_s, color=BOUNDARY, linewidth=1.6)
    if verdict.boundary_s is not None:
        _write(
            axes[0],
            f"{verdict.boundary_name} {verdict.boundary_s:.1f} s",
            (verdict.boundary_s, 1.0),
            (0, 3),
            "center",
            "bottom",
        )
    _finish(axes, waveform.duration_s)
    return figure


def ladder_figure(rungs: Mapping[str, Waveform]) -> Figure:
    """Mel spectrograms of the original and its other versions, one above the other; label -> waveform."""
    figure, axes = _stack([0.95] * len(rungs))
    for axis, (label, waveform) in zip(axes, rungs.items(), strict=True):
        _draw_mel(waveform, axis, label.replace(", ", ",\n"))
    _finish(axes, max(waveform.duration_s for waveform in rungs.values()))
    return figure


def seam_text(seam: Seam) -> str:
    """The seam's figures in words."""
    place = round(100 * seam.flux_percentile)
    return f"join: flux above {place} % of the prompt's own, level {seam.level_step_db:+.1f} dB"


def _small_print(timeline: Timeline) -> list[str]:
    notes = [f"{lane.label}: {lane.note}" for lane in timeline.lanes if lane.note]
    return [seam_text(timeline.seam), *notes] if timeline.seam is not None else notes


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG, SVG or PDF, by the path's suffix, with a see-through background. The same figure gives the same
    bytes: no date is written."""
    FigureCanvasAgg(figure)
    options = {
        ".png": {"pil_kwargs": {"compress_level": 3}},
        ".svg": {"metadata": {"Date": None}},
        ".pdf": {"metadata": {"CreationDate": None}},
    }[path.suffix]
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "audiolm"}):
        figure.savefig(path, dpi=FIGURE_DPI, transparent=True, **options)
    return path


def _panels(timeline: Timeline) -> Iterator[Panel]:
    yield 0.42, partial(_draw_waveform, timeline.waveform)
    yield 1.6, partial(_draw_mel, timeline.waveform)
    if timeline.roll is not None:
        yield 1.1, partial(_draw_roll, timeline.roll)
    for lane in timeline.lanes:
        yield 0.2 + 0.1 * lane.ids.shape[1], partial(_draw_lane, lane)
    scored = [lane for lane in timeline.lanes if lane.scores is not None]
    if scored:
        yield 0.9, partial(_draw_surprisal, scored)
    if timeline.verdict is not None and len(timeline.verdict.segment_probabilities) > 0:
        yield 0.55, partial(_draw_score, timeline.verdict, timeline.verdict_start_s)


def _stack(heights: Sequence[float], below_in: float = 0.0) -> tuple[Figure, list[Axes]]:
    """Axes of the given heights (inches) under each other, with `below_in` free below; placed by hand, since a layout
    engine takes longer to run than everything else of a picture."""
    height = sum(heights) + GAP_IN * (len(heights) - 1) + MARGINS_IN["top"] + MARGINS_IN["bottom"] + below_in
    figure = Figure(figsize=(FIGURE_WIDTH_IN, height))
    width = FIGURE_WIDTH_IN - MARGINS_IN["left"] - MARGINS_IN["right"]
    axes: list[Axes] = []
    top = height - MARGINS_IN["top"]
    for number, own in enumerate(heights):
        place = (MARGINS_IN["left"] / FIGURE_WIDTH_IN, (top - own) / height, width / FIGURE_WIDTH_IN, own / height)
        axes.append(figure.add_axes(place, sharex=axes[0] if axes else None))
        axes[-1].tick_params(labelbottom=number == len(heights) - 1)
        top -= own + GAP_IN
    return figure, axes


def _draw_waveform(waveform: Waveform, axis: Axes) -> None:
    """Highest and lowest sample of about every pixel."""
    samples = waveform.samples.detach().cpu().float().numpy()
    starts = np.linspace(0, len(samples), min(len(samples), 1200), endpoint=False).astype(np.int64)
    high, low = np.maximum.reduceat(samples, starts), np.minimum.reduceat(samples, starts)
    times_s = starts / waveform.sample_rate_hz
    axis.fill_between(times_s, low, high, color=INK, linewidth=0.3, step="post")
    limit = max(float(np.abs(samples).max()), 1e-3)
    axis.set_ylim(-1.05 * limit, 1.05 * limit)
    axis.set_yticks([])
    _name(axis, "sound")


def _draw_mel(waveform: Waveform, axis: Axes, label: str = "mel\nkHz") -> None:
    picture = _log_mel(waveform.samples.detach().cpu().float())
    top, half_s = float(picture.max()), 0.5 * MEL_HOP / waveform.sample_rate_hz
    axis.imshow(
        picture,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(-half_s, (2 * picture.shape[1] - 1) * half_s, 0.0, MEL_BANDS),  # column k is centred on hop k
        cmap=matplotlib.colormaps["magma"],
        vmin=top - MEL_RANGE,
        vmax=top,
    )
    axis.set_yticks([_mel_position(hz) for hz in (250, 1000, 4000)], ["0.25", "1", "4"])
    _name(axis, label)


def _draw_saliency(waveform: Waveform, saliency: Tensor, axis: Axes) -> None:
    _draw_mel(waveform, axis, "for and\nagainst\n“generated”")
    axis.images[0].set_cmap("gray")
    extent = (0.0, waveform.duration_s, 0.0, MEL_BANDS)
    axis.imshow(painted(saliency, saliency.shape[1]), aspect="auto", interpolation="none", extent=extent)


def _log_mel(samples: Tensor) -> np.ndarray:
    """[T] -> [80, T // 160 + 1]. The ends are held beyond the clip: a jump to zero there would be drawn as a click."""
    hops = -(-MEL_FFT // 2 // MEL_HOP)
    held = F.pad(samples[None], (hops * MEL_HOP, hops * MEL_HOP), mode="replicate")
    mel = spectra.log_mel(held, MEL_BANDS, n_fft=MEL_FFT, hop_length=MEL_HOP)
    return mel[0, :, hops:-hops].numpy()


def _mel_position(hz: float) -> float:
    """Where a frequency lies among the MEL_BANDS bands of the picture."""
    centres = spectra.mel_centres_hz(MEL_BANDS).numpy()
    return float(np.interp(hz, centres, np.arange(MEL_BANDS) + 0.5))


def _draw_roll(roll: Roll, axis: Axes) -> None:
    """A bar a note, the stronger its colour the louder; two octaves at least, a line at every C."""
    low, high = (int(roll.pitch.min()), int(roll.pitch.max())) if len(roll) else (60, 60)
    low, high = min(low, (low + high) // 2 - 12) - 2, max(high, (low + high) // 2 + 12) + 2
    bars = [
        ((start, pitch), (end, pitch)) for start, end, pitch in zip(roll.onset_s, roll.end_s, roll.pitch, strict=True)
    ]
    colours = [(*to_rgb(NOTE), 0.5 + 0.5 * velocity / 127) for velocity in roll.velocity]
    points = axis.bbox.height * 72 / axis.figure.dpi / (high - low)
    axis.add_collection(LineCollection(bars, colors=colours, linewidths=max(points, 2.0), capstyle="butt"))
    axis.set_ylim(low, high)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    for pitch in ticks:
        axis.axhline(pitch, color=INK, linewidth=0.4, alpha=0.5)
    axis.set_yticks(ticks, [f"C{pitch // 12 - 1}" for pitch in ticks])
    _name(axis, "notes\n(estimated)")


def _draw_lane(lane: TokenLane, axis: Axes) -> None:
    """A row a level; -1, no token, stays empty."""
    ids = lane.ids.detach().cpu().numpy().T
    axis.imshow(
        np.ma.masked_array(shades(ids), ids < 0),
        aspect="auto",
        interpolation="none",
        extent=(0.0, lane.duration_s, ids.shape[0], 0),
        cmap=FAMILIES[lane.family],
        vmin=0.0,
        vmax=1.0,
    )
    for level in range(1, ids.shape[0]):
        axis.axhline(level, color="white", linewidth=0.4, alpha=0.6)
    axis.set_yticks([])
    family, _, rest = lane.label.partition(" ")
    _name(axis, f"{family}\n{rest.replace('-', '–')}".rstrip())


def _draw_surprisal(lanes: Sequence[TokenLane], axis: Axes) -> None:
    """Surprisal (solid) and the entropy of what was expected (dashed), mean over levels, smoothed: of each family's
    first lane."""
    by_family = {lane.family: lane for lane in reversed(lanes)}
    shown = [(family, colour) for family, colour in FAMILY_LINES.items() if family in by_family]
    for family, colour in shown:
        lane = by_family[family]
        times_s = (np.arange(lane.ids.shape[0]) + 0.5) / lane.rate_hz
        width = round(max(SMOOTHING_S, lane.duration_s / 60) * lane.rate_hz)
        nats, entropy = (_smoothed(values.numpy(), width) for values in (lane.scores.nats, lane.scores.entropy))
        axis.plot(times_s, nats, color=colour, linewidth=1.1)
        axis.plot(times_s, entropy, color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
    axis.set_ylim(0.0, 1.3 * max(axis.dataLim.y1, 1.0))  # room for the legend
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    for place, (word, colour) in zip((0.01, 0.11, 0.19, 0.25), [*shown, ("dashed: expected", INK)], strict=False):
        axis.text(place, 0.96, word, color=colour, fontsize=SMALL_PT, va="top", transform=axis.transAxes)
    _name(axis, "surprisal\nnats")


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """[N, L] -> [N]: mean over levels and `width` steps around each, of what is not NaN; NaN where there is nothing."""
    known = np.isfinite(values)
    kernel = np.ones(min(width, len(values)))
    total = np.convolve(np.where(known, values, 0.0).sum(axis=1), kernel, mode="same")
    count = np.convolve(known.sum(axis=1), kernel, mode="same")
    return np.where(count > 0.5, total / np.maximum(count, 1.0), np.nan)


def _draw_score(verdict: Verdict, start_s: float, axis: Axes) -> None:
    times_s = np.asarray(verdict.segment_times_s, dtype=np.float64) + start_s
    axis.plot(times_s, verdict.segment_probabilities, color=SCORE, linewidth=1.4, marker="o", markersize=1.8)
    axis.axhline(verdict.threshold, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.set_ylim(-0.04, 1.04)
    axis.set_yticks([0.0, verdict.threshold, 1.0], ["0", f"{verdict.threshold:.2f}", "1"])
    _name(axis, "generated?")


def _name(axis: Axes, label: str) -> None:
    """A label at the left edge of the figure."""
    _write(axis, label, (0.0, 0.5), (-72 * MARGINS_IN["left"] + 4, 0), "left", "center")


def _finish(axes: list[Axes], duration_s: float) -> None:
    for axis in axes:
        axis.set_xlim(0.0, duration_s)
        axis.tick_params(colors=INK, labelsize=8, length=2.5)
        for spine in axis.spines.values():
            spine.set(color=INK, linewidth=0.6, alpha=0.6)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    _write(axes[-1], "seconds", (0.0, 0.0), (-72 * MARGINS_IN["left"] + 4, -5), "left", "top")


def _mark_prompt_end(axes: list[Axes], prompt_s: float, after: str) -> None:
    for axis in axes:
        axis.axvline(prompt_s, color=PROMPT_LINE, linewidth=1.8)
    _write(axes[0], "prompt", (prompt_s, 1.0), (-6, 3), "right", "bottom")
    _write(axes[0], after, (prompt_s, 1.0), (6, 3), "left", "bottom")


def _write(
    axis: Axes,
    text: str,
    place: tuple[float, float],
    offset_pt: tuple[float, float],
    ha: str,
    va: str,
    size_pt: float = TEXT_PT,
) -> None:
    """`place` is in seconds across and in heights of the axis."""
    axis.annotate(
        text,
        place,
        xycoords=("data", "axes fraction"),
        xytext=offset_pt,
        textcoords="offset points",
        ha=ha,
        va=va,
        color=INK,
        fontsize=size_pt,
    )
