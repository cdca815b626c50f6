"""Small pictures of the page, as data URIs and as SVG that takes the page's own colours. Pure."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
import numpy as np
from PIL import Image
from torch import Tensor

from audiolm.audio import spectra
from audiolm.inspection.figures import MEL_BANDS, MEL_FFT, MEL_HOP, MEL_RANGE
from audiolm.inspection.saliency import painted
from audiolm.streams import Waveform

MAX_COLUMNS = 900


def data_uri(picture: bytes) -> str:
    """A PNG as an address that needs no server."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def mel_png(waveform: Waveform) -> bytes:
    """The mel spectrogram, low frequencies at the bottom, MEL_RANGE nats below the loudest cell; at most MAX_COLUMNS
    wide: of more, the loudest of neighbours are shown."""
    samples = waveform.samples.detach().cpu().float()[None]
    mel = spectra.log_mel(samples, MEL_BANDS, n_fft=MEL_FFT, hop_length=MEL_HOP)[0].numpy()
    size = -(-mel.shape[1] // MAX_COLUMNS)
    starts = np.arange(0, mel.shape[1], size)
    mel = np.maximum.reduceat(mel, starts, axis=1)[::-1]
    shades = ((mel - mel.max()) / MEL_RANGE + 1.0).clip(0.0, 1.0)
    picture = Image.fromarray((shades * 255).astype(np.uint8), "P")
    picture.putpalette((matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).astype(np.uint8).tobytes())
    return _png(picture)


def saliency_png(saliency: Tensor) -> bytes:
    """Saliency [mels, frames] to lay over `mel_png`; at most MAX_COLUMNS wide."""
    return _png(Image.fromarray(painted(saliency, MAX_COLUMNS), "RGBA"))


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def bars_svg(values: Sequence[float], marks: Mapping[int, str], alt: str) -> str:
    """Bars of the values' sizes, the largest as high as the picture; `marks` are labels below bars, by their number."""
    top = max((*values, 0.0)) or 1.0
    width = 100.0 / max(1, len(values))
    bars = "".join(
        f'<rect x="{n * width:.2f}%" y="{100 - 100 * value / top:.1f}%" width="{0.86 * width:.2f}%" '
        f'height="{100 * value / top:.1f}%"/>'
        for n, value in enumerate(values)
    )
    labels = "".join(
        f'<span style="left:{(n + 0.43) * width:.2f}%">{escape(text)}</span>' for n, text in sorted(marks.items())
    )
    return (
        f'<div class="bars" role="img" aria-label="{escape(alt)}"><svg aria-hidden="true">{bars}</svg>'
        f'<div class="marks" aria-hidden="true">{labels}</div></div>'
    )
