"""The one door through which recordings come in: hostile input stops here, with a typed error, in bounded memory.

A file is decoded block by block, mixed to mono and resampled as it streams, and dropped as soon as a limit is passed:
what a header claims is used to refuse early, never to allocate. Reading needs some 100 MB at most, whatever the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from audiolm.audio import isolation
from audiolm.audio.decoding import BLOCK_VALUES, check_claim, check_layout, decode, mono, open_recording
from audiolm.audio.limits import LIMITS
from audiolm.audio.resample import resample_blocks
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import AudioFormatError, AudioLimitError, AudioSilentError, AudioTooShortError
from audiolm.streams import Waveform

__all__ = ["LIMITS", "from_array", "read_comment", "read_waveform", "write_wav"]


_SILENCE_WINDOW = SAMPLE_RATE_HZ // 20
_MAX_RIFF_CHUNKS = 64


def read_waveform(path: str | os.PathLike[str], *, max_s: float | None = None, trusted: bool = False) -> Waveform:
    """A WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF, AU, CAF or W64 file as 16 kHz mono float32 within [-1, 1].

    With `max_s` only the first `max_s` seconds are decoded, checked and returned; a file whose header claims more than
    `LIMITS.max_duration_s` is refused all the same. Files that exceed full scale are scaled down to it. Decoding
    happens in a process of its own (`audiolm.audio.isolation`) unless the file is `trusted`, as one's own corpus is.

    Raises AudioFormatError (not audio, empty, damaged), AudioLimitError (duration, channels, rate, bytes, magnitude),
    AudioTooShortError, AudioSilentError, AudioNotFiniteError; the message names the limit and the value found.
    """
    descriptor = open_recording(path)
    try:
        rate_hz, blocks = (decode if trusted or not isolation.AVAILABLE else isolation.decode_apart)(descriptor)
        with closing(blocks):
            return _assemble(blocks, rate_hz, max_s)
    finally:
        os.close(descriptor)


def from_array(samples: np.ndarray, sample_rate_hz: int, *, max_s: float | None = None) -> Waveform:
    """Microphone samples, (N,) or (N, channels), of any integer or float type, as 16 kHz mono float32.

    Integers span full scale at their type's range; unsigned ones are centred. Checks and errors as `read_waveform`.
    """
    samples = np.asarray(samples)
    if samples.dtype.kind not in "iuf":
        raise AudioFormatError(f"samples must be integers or floats, found {samples.dtype}")
    if samples.ndim not in (1, 2):
        raise AudioFormatError(f"samples must have shape (N,) or (N, channels), found {samples.shape}")
    frames = samples[:, None] if samples.ndim == 1 else samples
    if not isinstance(sample_rate_hz, int | np.integer):
        raise AudioFormatError(f"the sample rate must be a whole number of Hz, found {sample_rate_hz!r}")
    check_layout(frames.shape[1], int(sample_rate_hz))
    check_claim(frames.shape[0], frames.shape[1], int(sample_rate_hz))
    step = max(1, BLOCK_VALUES // frames.shape[1])
    blocks = (_to_float(frames[start : start + step]) for start in range(0, frames.shape[0], step))
    return _assemble(mono(blocks, int(sample_rate_hz)), int(sample_rate_hz), max_s)


def _to_float(block: np.ndarray) -> np.ndarray:
    """Samples of any real type -> float32, integers at their type's full scale."""
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as such
            return block.astype(np.float32)
    info = np.iinfo(block.dtype)
    centre = 0.0 if block.dtype.kind == "i" else -(info.min + info.max + 1) / 2
    return ((block.astype(np.float64) + centre) * (2.0 / (float(info.max) - float(info.min) + 1.0))).astype(np.float32)


def _assemble(blocks: Iterable[np.ndarray], rate_hz: int, max_s: float | None) -> Waveform:
    """Resamples, joins and checks blocks [n]; stops asking for them once `max_s` seconds are there."""
    wanted = None if max_s is None else round(max_s * SAMPLE_RATE_HZ)
    pieces: list[Tensor] = []
    length = 0
    for piece in resample_blocks(map(torch.from_numpy, blocks), rate_hz, SAMPLE_RATE_HZ):
        pieces.append(piece)
        length += piece.shape[0]
        if wanted is not None and length >= wanted:
            break
    samples = torch.cat(pieces)[:wanted] if pieces else torch.zeros(0)
    if samples.shape[0] < LIMITS.min_duration_s * SAMPLE_RATE_HZ:
        found_s = samples.shape[0] / SAMPLE_RATE_HZ
        raise AudioTooShortError(f"{found_s:.3g} s of sound; at least {LIMITS.min_duration_s:g} s are needed")
    level_db = _loudest_db(samples)
    if level_db < LIMITS.silence_db:
        found = "digital silence" if level_db == -np.inf else f"silence: the loudest moment has {level_db:.1f} dB"
        raise AudioSilentError(f"{found}; at least {LIMITS.silence_db:g} dB relative to full scale are needed")
    peak = float(samples.abs().max())
    return Waveform(samples / peak if peak > 1.0 else samples)


def _loudest_db(samples: Tensor) -> float:
    """Level in dB of the loudest 50 ms of [T], about its mean (a constant offset is no sound)."""
    windows = (samples - samples.mean()).unfold(0, _SILENCE_WINDOW, _SILENCE_WINDOW)
    power = float(windows.square().mean(dim=1).max())
    return 10.0 * float(np.log10(power)) if power > 0.0 else -np.inf


def write_wav(path: str | os.PathLike[str], waveform: Waveform, comment: str = "") -> None:
    """16-bit PCM mono WAV; `comment` (any length up to `LIMITS.max_comment_bytes`) becomes its LIST/INFO ICMT text.

    Written here and not by libsndfile, which drops comments beyond about 2 kB without a word.

    Raises AudioLimitError for a comment that is too long, AudioFormatError where it holds a NUL character.
    """
    text = comment.encode()
    if len(text) > LIMITS.max_comment_bytes:
        raise AudioLimitError(f"a comment of {len(text)} bytes; at most {LIMITS.max_comment_bytes} are accepted")
    if b"\0" in text:
        raise AudioFormatError("a comment cannot hold NUL characters")
    rate = waveform.sample_rate_hz
    info = _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", text + b"\0")) if text else b""
    pcm = waveform.int16().numpy().astype("<i2").tobytes()
    body = b"WAVE" + _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)) + info + _chunk(b"data", pcm)
    Path(path).write_bytes(_chunk(b"RIFF", body))


def read_comment(path: str | os.PathLike[str]) -> str:
    """The comment of a WAV file (LIST/INFO ICMT), or "" where there is none.

    Raises AudioFormatError for what is not a WAV file, AudioLimitError for a comment beyond the limit of `write_wav`.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            if head[:4] != b"RIFF" or head[8:] != b"WAVE":
                raise AudioFormatError("not a WAV file")
            for name, size in _chunks(file):
                if name == b"LIST" and size >= 4 and file.read(4) == b"INFO":
                    for inner, inner_size in _chunks(file, size - 4):
                        if inner == b"ICMT":
                            return _comment_text(file, inner_size)
    except OSError as error:
        raise AudioFormatError(f"the file cannot be opened: {error.strerror}") from error
    return ""


def _comment_text(file: BinaryIO, size: int) -> str:
    if size > LIMITS.max_comment_bytes + 1:
        raise AudioLimitError(f"a comment of {size} bytes; at most {LIMITS.max_comment_bytes} are accepted")
    return file.read(size).split(b"\0", 1)[0].decode("utf-8", "replace")


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _chunks(file: BinaryIO, length: int | None = None) -> Iterator[tuple[bytes, int]]:
    """Names and sizes of the RIFF chunks from here on, the file standing at each one's data; at most 64."""
    end = None if length is None else file.tell() + length
    for _ in range(_MAX_RIFF_CHUNKS):
        if end is not None and file.tell() + 8 > end:
            return
        head = file.read(8)
        if len(head) < 8:
            return
        size = struct.unpack("<I", head[4:])[0]
        start = file.tell()
        yield head[:4], size
        file.seek(start + size + size % 2)
