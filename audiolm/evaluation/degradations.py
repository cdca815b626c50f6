"""What happens to sound on its way through the world: lossy files, noise, rooms, players. One table for every row.

Detector (D5) and watermark are measured under the same ones. All are deterministic: noise and room come from fixed
seeds, so that two models are compared on the same samples.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiolm.audio.resample import resample
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import EvaluationError

TRIM_S = 0.3
REVERBERATION_S = 0.4  # time in which the room's echo falls by 60 dB
DIRECT_TO_ECHO_DB = 3.0

_MP3_KBPS = (8.0, 160.0)  # the least and most of MPEG-2 layer III, which 16 kHz needs: libsndfile spans its level over
_OPUS_KBPS = (6.0, 256.0)  # them, 1 the least
_SEED = 0

Degradation = Callable[[Tensor], Tensor]


def mp3(waveform: Tensor, kbps: float) -> Tensor:
    """[T] -> [T]: through an MP3 file of constant rate."""
    return _through_libsndfile(waveform, "MP3", "MPEG_LAYER_III", _level(kbps, _MP3_KBPS), bitrate_mode="CONSTANT")


def opus(waveform: Tensor, kbps: float) -> Tensor:
    """[T] -> [T]: through an Ogg Opus file."""
    return _through_libsndfile(waveform, "OGG", "OPUS", _level(kbps, _OPUS_KBPS))


def aac(waveform: Tensor, kbps: float) -> Tensor:
    """[T] -> [T]: through an AAC stream (ADTS). Raises EvaluationError where the package av is missing."""
    try:
        import av
    except ImportError as error:
        raise EvaluationError("AAC needs the package av (extra `eval`)") from error
    file = io.BytesIO()
    with av.open(file, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono", bit_rate=round(1000 * kbps))
        frame = av.AudioFrame.from_ndarray(_clipped(waveform)[None].numpy(), format="fltp", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    file.seek(0)
    with av.open(file, format="aac") as container:
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return _fitted(torch.from_numpy(decoded[stream.codec_context.frame_size :]), waveform)  # the first frame is delay


def noise(waveform: Tensor, snr_db: float) -> Tensor:
    """[T] -> [T]: white noise this far below the RMS of the whole."""
    drawn = torch.randn(waveform.shape[0], generator=torch.Generator().manual_seed(_SEED))
    return waveform + drawn * waveform.square().mean().sqrt() * 10.0 ** (-snr_db / 20.0)


def narrow(waveform: Tensor, rate_hz: int) -> Tensor:
    """[T] -> [T]: down to another rate and back, so that nothing above half of it is left."""
    there = resample(waveform, SAMPLE_RATE_HZ, rate_hz)
    return _fitted(resample(there, rate_hz, SAMPLE_RATE_HZ), waveform)


def gain(waveform: Tensor, gain_db: float) -> Tensor:
    """[T] -> [T]: what then exceeds full scale is clipped hard."""
    return _clipped(waveform * 10.0 ** (gain_db / 20.0))


def trim(waveform: Tensor, seconds: float = TRIM_S) -> Tensor:
    """[T] -> [T - 16000 seconds]: without its start; shorter clips keep nothing."""
    return waveform[round(seconds * SAMPLE_RATE_HZ) :]


def speed(waveform: Tensor, percent: int) -> Tensor:
    """[T] -> [T / (1 + percent / 100)]: faster and higher, or slower and lower, as a tape."""
    return resample(waveform, 100 + percent, 100)


def room(waveform: Tensor) -> Tensor:
    """[T] -> [T]: in a room of 0.4 s reverberation, its echo 3 dB below the direct sound, which stays as it is."""
    length = round(REVERBERATION_S * SAMPLE_RATE_HZ)
    decay = torch.exp(-math.log(1000.0) * torch.arange(length) / length)
    echo = torch.randn(length, generator=torch.Generator().manual_seed(_SEED)) * decay
    echo *= 10.0 ** (-DIRECT_TO_ECHO_DB / 20.0) / echo.square().sum().sqrt()
    echo[0] = 1.0
    size = waveform.shape[0] + length
    wet = torch.fft.irfft(torch.fft.rfft(waveform, size) * torch.fft.rfft(echo, size), size)
    return wet[: waveform.shape[0]]


DEGRADATIONS: dict[str, Degradation] = {
    "none": lambda waveform: waveform,
    "mp3 64k": partial(mp3, kbps=64.0),
    "mp3 128k": partial(mp3, kbps=128.0),
    "opus 24k": partial(opus, kbps=24.0),
    "aac 64k": partial(aac, kbps=64.0),
    "noise 30 dB": partial(noise, snr_db=30.0),
    "noise 20 dB": partial(noise, snr_db=20.0),
    "resample 8 kHz": partial(narrow, rate_hz=8_000),
    "resample 11 kHz": partial(narrow, rate_hz=11_025),
    "gain -12 dB": partial(gain, gain_db=-12.0),
    "gain +12 dB": partial(gain, gain_db=12.0),
    "trim 0.3 s": trim,
    "speed -5 %": partial(speed, percent=-5),
    "speed +5 %": partial(speed, percent=5),
    "room": room,
}
"""[T] at 16 kHz -> [T'] at 16 kHz, float32 on the CPU; T' differs from T for trim and speed alone. "aac 64k" raises
EvaluationError where the package av is missing."""


def _through_libsndfile(waveform: Tensor, container: str, subtype: str, level: float, **options: str) -> Tensor:
    file = io.BytesIO()
    samples = _clipped(waveform).numpy()
    soundfile.write(
        file, samples, SAMPLE_RATE_HZ, format=container, subtype=subtype, compression_level=level, **options
    )
    file.seek(0)
    decoded, rate_hz = soundfile.read(file, dtype="float32")
    return _fitted(resample(torch.from_numpy(decoded), rate_hz, SAMPLE_RATE_HZ), waveform)


def _level(kbps: float, span: tuple[float, float]) -> float:
    """libsndfile's compression level, 0 (most bits) to 1, of a bit rate."""
    return (span[1] - kbps) / (span[1] - span[0])


def _clipped(waveform: Tensor) -> Tensor:
    return waveform.clamp(-1.0, 1.0)


def _fitted(samples: Tensor, like: Tensor) -> Tensor:
    """Cut, or filled with silence, to the length of `like`."""
    missing = like.shape[0] - samples.shape[0]
    return torch.nn.functional.pad(samples, (0, missing))
