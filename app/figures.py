"""Pictures of results: matplotlib figures for the page and tiny token images while a run goes on. Pure; no pyplot.

Figures have no background and neutral gray text, so that they sit on a light and on a dark page alike. The three token
families have one hue each (Okabe and Ito's orange, blue and green, told apart by every common kind of colour vision);
within a family the lightness tells ids apart.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from audiolm.audio import spectra
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC
from audiolm.detector import Verdict
from audiolm.events import Chunk, Continuation
from audiolm.streams import Waveform

INK = "#7a808a"  # contrast about 4:1 on white and on Gradio's dark page
PROMPT_LINE = "#a3a8b0"
SCORE = "#cc79a7"
MEL_BANDS = 80
MEL_FFT = 1024
MEL_HOP = 160
MEL_RANGE = 8.0  # natural-log units (about 70 dB) shown below the loudest cell
LIVE_ROWS_PER_LEVEL = {"semantic": 4, "coarse": 2, "fine": 1}
LIVE_GAP_ROWS = 3
LIVE_PROMPT_VEIL = (122, 128, 138, 40)
FIGURE_WIDTH_IN = 7.6
FIGURE_DPI = 150
MARGINS_IN = {"left": 0.78, "right": 0.12, "top": 0.26, "bottom": 0.5}
GAP_IN = 0.07
FAMILIES = {
    "semantic": LinearSegmentedColormap.from_list("semantic", ["#fdf0d0", "#f0b840", "#e69f00", "#a86400", "#4d2c00"]),
    "coarse": LinearSegmentedColormap.from_list("coarse", ["#d9eefa", "#86c6ec", "#56b4e9", "#0072b2", "#002c47"]),
    "fine": LinearSegmentedColormap.from_list("fine", ["#dcf3ea", "#6fcdaa", "#009e73", "#00674b", "#00291e"]),
}


def shades(ids: np.ndarray) -> np.ndarray:
    """Token ids -> lightness places in [0, 1): multiples of the golden ratio, so neighbouring ids lie far apart.
    One id has one shade wherever it occurs."""
    return np.mod(ids.astype(np.float64) * 0.6180339887498949, 1.0)


# the finished timeline


def timeline_figure(continuation: Continuation, num_coarse_levels: int) -> Figure:
    """Mel spectrogram, semantic, coarse and fine token lanes and, where there is a score, the detector's lane.

    They share one axis of seconds; a gray line is drawn where the prompt ends.
    """
    codes = continuation.acoustic.codes.cpu().numpy().T
    semantic = continuation.semantic.ids.cpu().numpy()[None]
    lanes = [
        ("semantic", "semantic", semantic, continuation.semantic.duration_s),
        ("coarse", f"coarse\n1–{num_coarse_levels}", codes[:num_coarse_levels], continuation.acoustic.duration_s),
    ]
    if codes.shape[0] > num_coarse_levels:
        name = f"fine\n{num_coarse_levels + 1}–{codes.shape[0]}"
        lanes.append(("fine", name, codes[num_coarse_levels:], continuation.acoustic.duration_s))
    scored = continuation.verdict is not None and len(continuation.verdict.segment_probabilities) > 0
    heights = [1.9, *(0.2 + 0.09 * lane[2].shape[0] for lane in lanes), *([0.55] if scored else [])]
    figure, axes = _stack(heights)
    _draw_mel(axes[0], continuation.waveform)
    for axis, (family, label, ids, duration_s) in zip(axes[1:], lanes, strict=False):
        _draw_lane(axis, ids, duration_s, FAMILIES[family], label)
    if scored:
        _draw_score(axes[-1], continuation.verdict, continuation.prompt_s)
    _finish(axes, continuation.waveform.duration_s)
    if continuation.prompt_s > 0:
        _mark_prompt_end(axes, continuation.prompt_s)
    return figure


def score_figure(waveform: Waveform, verdict: Verdict) -> Figure:
    """Mel spectrogram above the detector's probability over time, with its threshold."""
    scored = len(verdict.segment_probabilities) > 0
    figure, axes = _stack([1.9, 0.9] if scored else [1.9])
    _draw_mel(axes[0], waveform)
    if scored:
        _draw_score(axes[1], verdict, 0.0)
    _finish(axes, waveform.duration_s)
    return figure


def ladder_figure(rungs: Mapping[str, Waveform]) -> Figure:
    """Mel spectrograms of the original and its reconstructions, one above the other; label -> waveform."""
    figure, axes = _stack([0.95] * len(rungs))
    for axis, (label, waveform) in zip(axes, rungs.items(), strict=True):
        _draw_mel(axis, waveform)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
        axis.set_yticks([])
    _finish(axes, max(waveform.duration_s for waveform in rungs.values()))
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG with a see-through background."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=FIGURE_DPI, transparent=True, pil_kwargs={"compress_level": 3})
    return path


def _stack(heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Axes of the given heights (inches) under each other; placed by hand, since a layout engine takes longer to run
    than everything else of a picture."""
    height = sum(heights) + GAP_IN * (len(heights) - 1) + MARGINS_IN["top"] + MARGINS_IN["bottom"]
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


def _draw_mel(axis: Axes, waveform: Waveform) -> None:
    mel = spectra.log_mel(waveform.samples.detach().cpu().float()[None], MEL_BANDS, n_fft=MEL_FFT, hop_length=MEL_HOP)
    picture = mel[0].numpy()
    top = float(picture.max())
    axis.imshow(
        picture,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, waveform.duration_s, 0.0, MEL_BANDS),
        cmap=matplotlib.colormaps["magma"],
        vmin=top - MEL_RANGE,
        vmax=top,
    )
    axis.set_yticks([_mel_position(hz) for hz in (250, 1000, 4000)], ["0.25", "1", "4"])
    axis.set_ylabel("mel, kHz")


def _mel_position(hz: float) -> float:
    """Where a frequency lies among the MEL_BANDS bands of the picture."""
    centres = spectra.mel_centres_hz(MEL_BANDS).numpy()
    return float(np.interp(hz, centres, np.arange(MEL_BANDS) + 0.5))


def _draw_lane(axis: Axes, ids: np.ndarray, duration_s: float, colours: Colormap, label: str) -> None:
    axis.imshow(
        shades(ids),
        aspect="auto",
        interpolation="nearest",
        extent=(0.0, duration_s, ids.shape[0], 0),
        cmap=colours,
        vmin=0.0,
        vmax=1.0,
    )
    for level in range(1, ids.shape[0]):
        axis.axhline(level, color="white", linewidth=0.4, alpha=0.6)
    axis.set_yticks([])
    axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)


def _draw_score(axis: Axes, verdict: Verdict, start_s: float) -> None:
    times = np.asarray(verdict.segment_times_s, dtype=np.float64) + start_s
    axis.plot(times, verdict.segment_probabilities, color=SCORE, linewidth=1.4, marker="o", markersize=1.8)
    axis.axhline(verdict.threshold, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axis.set_ylim(-0.04, 1.04)
    axis.set_yticks([0.0, verdict.threshold, 1.0], ["0", f"{verdict.threshold:.2f}", "1"])
    axis.set_ylabel("generated?")


def _finish(axes: list[Axes], duration_s: float) -> None:
    for axis in axes:
        axis.set_xlim(0.0, duration_s)
        axis.tick_params(colors=INK, labelsize=8, length=2.5)
        axis.yaxis.label.set(color=INK, fontsize=8.5)
        for spine in axis.spines.values():
            spine.set(color=INK, linewidth=0.6, alpha=0.6)
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes[-1].set_xlabel("seconds", color=INK, fontsize=8.5)


def _mark_prompt_end(axes: list[Axes], prompt_s: float) -> None:
    for axis in axes:
        axis.axvline(prompt_s, color=PROMPT_LINE, linewidth=1.8)
    for x, text, side in ((-6, "prompt", "right"), (6, "generated", "left")):
        axes[0].annotate(
            text,
            (prompt_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(x, 3),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color=INK,
            fontsize=8.5,
        )


# while a run goes on


class LiveTokens:
    """The tokens of a run as they come, on one time axis of 50 Hz columns; the prompt's part stays empty."""

    def __init__(self, num_rows: int, prompt_s: float, continuation_s: float, num_levels: Mapping[str, int]) -> None:
        """`num_levels` are those of each stage, "semantic", "coarse" and "fine"."""
        self.prompt_frames = round(prompt_s * FRAME_RATE_HZ)
        self.num_frames = self.prompt_frames + round(continuation_s * FRAME_RATE_HZ)
        self._num_rows = num_rows
        self._lanes = {
            stage: np.full((num_rows, self.num_frames, levels), -1, dtype=np.int64)
            for stage, levels in num_levels.items()
        }
        self._semantic_end = [self.prompt_frames] * num_rows

    def add(self, chunk: Chunk) -> None:
        """Takes the tokens [N, steps, L] of a chunk; what lies beyond the axis is dropped."""
        tokens = chunk.tokens.detach().cpu().numpy()[: self._num_rows]
        if chunk.stage == "semantic":
            self._add_semantic(tokens)
        else:
            room = self._lanes[chunk.stage][:, chunk.start_step : chunk.start_step + tokens.shape[1]]
            room[:] = tokens[:, : room.shape[1]]

    def _add_semantic(self, tokens: np.ndarray) -> None:
        """A step is (id, run length - 1), or an id alone; every position of 25 Hz is FRAMES_PER_SEMANTIC columns."""
        lane = self._lanes["semantic"]
        for row, steps in enumerate(tokens):
            runs = steps[:, 1] + 1 if steps.shape[1] > 1 else np.ones(len(steps), dtype=np.int64)
            ids = np.repeat(steps[:, 0], runs * FRAMES_PER_SEMANTIC)[: self.num_frames - self._semantic_end[row]]
            lane[row, self._semantic_end[row] : self._semantic_end[row] + len(ids), 0] = ids
            self._semantic_end[row] += len(ids)

    def picture(self) -> np.ndarray:
        """RGBA [H, W, 4]: a block a row (semantic, coarse, fine under each other), a column a frame; what is not there
        yet is see-through, the prompt a gray veil."""
        gap = np.zeros((LIVE_GAP_ROWS, self.num_frames, 4), dtype=np.uint8)
        blocks: list[np.ndarray] = []
        for row in range(self._num_rows):
            blocks += [gap] * bool(row) + [self._painted(stage, row) for stage in self._lanes]
        picture = np.concatenate(blocks)
        veil = picture[:, : self.prompt_frames]
        veil[veil[..., 3] == 0] = LIVE_PROMPT_VEIL
        return picture

    def _painted(self, stage: str, row: int) -> np.ndarray:
        ids = self._lanes[stage][row].T
        painted = (FAMILIES[stage](shades(ids)) * 255).astype(np.uint8)
        painted[ids < 0] = 0
        return painted.repeat(LIVE_ROWS_PER_LEVEL[stage], axis=0)


def png(picture: np.ndarray) -> bytes:
    """RGBA [H, W, 4] uint8 -> PNG."""
    file = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(file, "PNG")
    return file.getvalue()
