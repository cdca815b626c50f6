"""The one door through which recordings come in: hostile input stops here, with a typed error, in bounded memory.

A file is decoded block by block, mixed to mono and resampled as it streams, and dropped as soon as a limit is passed:
what a header claims is used to refuse early, never to allocate. Reading needs some 100 MB at most, whatever the file.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from audiolm.audio.resample import resample_blocks
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.errors import (
    AudioFormatError,
    AudioLimitError,
    AudioNotFiniteError,
    AudioSilentError,
    AudioTooShortError,
)
from audiolm.streams import Waveform


@dataclass(frozen=True)
class AudioLimits:
    """Every limit on what is read; the README and the page print them from here."""

    max_duration_s: float = 600.0
    min_duration_s: float = 0.5
    max_channels: int = 8
    min_rate_hz: int = 4_000
    max_rate_hz: int = 192_000
    max_file_bytes: int = 256 * 2**20
    max_values: int = 57_600_000  # decoded samples over all channels: 600 s of 48 kHz stereo
    max_magnitude: float = 65_536.0  # float files may exceed 1 (they are scaled down), but not by more than this
    silence_db: float = -60.0  # level of the loudest 50 ms, relative to full scale
    max_comment_bytes: int = 2**20


LIMITS = AudioLimits()

_BLOCK_VALUES = 2**17
_UNKNOWN_FRAMES = 2**62  # libsndfile's count where a stream does not say how long it is
_SILENCE_WINDOW = SAMPLE_RATE_HZ // 20
_MAX_RIFF_CHUNKS = 64
_MAX_FLAC_BLOCKS = 128
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b".snd")


def read_waveform(path: str | os.PathLike[str], *, max_s: float | None = None) -> Waveform:
    """A WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF, AU, CAF or W64 file as 16 kHz mono float32 within [-1, 1].

    With `max_s` only the first `max_s` seconds are decoded, checked and returned; a file whose header claims more than
    `LIMITS.max_duration_s` is refused all the same. Files that exceed full scale are scaled down to it.

    Raises AudioFormatError (not audio, empty, damaged), AudioLimitError (duration, channels, rate, bytes, magnitude),
    AudioTooShortError, AudioSilentError, AudioNotFiniteError; the message names the limit and the value found.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioFormatError(f"the file cannot be opened: {reason}") from error
    try:
        _check_file(descriptor)
        with _open_stream(descriptor) as stream:
            _check_layout(stream.channels, stream.samplerate)
            _check_claim(stream.frames, stream.channels, stream.samplerate)
            return _assemble(_decode(stream), stream.samplerate, max_s)
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
    _check_layout(frames.shape[1], int(sample_rate_hz))
    _check_claim(frames.shape[0], frames.shape[1], int(sample_rate_hz))
    step = max(1, _BLOCK_VALUES // frames.shape[1])
    blocks = (_to_float(frames[start : start + step]) for start in range(0, frames.shape[0], step))
    return _assemble(blocks, int(sample_rate_hz), max_s)


class _Stream(soundfile.SoundFile):
    """Says it cannot seek, so that soundfile reads straight on: it seeks after each block otherwise, which is slow and
    fails on FLAC streams of unstated length."""

    def seekable(self) -> bool:
        return False


def _check_file(descriptor: int) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise AudioFormatError("not a regular file")
    if status.st_size == 0:
        raise AudioFormatError("the file is empty (0 bytes)")
    if status.st_size > LIMITS.max_file_bytes:
        found, limit = status.st_size / 2**20, LIMITS.max_file_bytes / 2**20
        raise AudioLimitError(f"the file has {found:.0f} MiB; at most {limit:.0f} MiB are accepted")
    head = os.read(descriptor, 10)
    mpeg_frame = len(head) >= 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if not mpeg_frame and not head.startswith(_MAGIC):
        raise AudioFormatError("not an audio file of a known kind (WAV, FLAC, OGG, MP3, AIFF, AU, CAF)")
    _check_flac_metadata(descriptor, head)
    os.lseek(descriptor, 0, os.SEEK_SET)


def _check_flac_metadata(descriptor: int, head: bytes) -> None:
    """Refuses FLAC (an ID3 tag may go before it) with so many metadata blocks that reading them alone takes seconds."""
    start = 0
    if head.startswith(b"ID3") and len(head) == 10:
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    os.lseek(descriptor, start, os.SEEK_SET)
    if os.read(descriptor, 4) != b"fLaC":
        return
    for _ in range(_MAX_FLAC_BLOCKS):
        block = os.read(descriptor, 4)
        if len(block) < 4 or block[0] & 0x80:
            return
        os.lseek(descriptor, int.from_bytes(block[1:], "big"), os.SEEK_CUR)
    raise AudioFormatError(f"damaged: more than {_MAX_FLAC_BLOCKS} FLAC metadata blocks")


def _open_stream(descriptor: int) -> _Stream:
    try:
        return _Stream(descriptor, closefd=False)
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string)
        if "not a regular file" in reason:  # what libsndfile says where it finds no MP3 frame
            reason = "no sound found in it"
        raise AudioFormatError(f"not readable as audio: {reason}") from error


def _check_layout(channels: int, rate_hz: int) -> None:
    if not 1 <= channels <= LIMITS.max_channels:
        raise AudioLimitError(f"{channels} channels; 1 to {LIMITS.max_channels} are accepted")
    if not LIMITS.min_rate_hz <= rate_hz <= LIMITS.max_rate_hz:
        limits = f"{LIMITS.min_rate_hz} to {LIMITS.max_rate_hz} Hz"
        raise AudioLimitError(f"a sample rate of {rate_hz} Hz; {limits} are accepted")


def _check_claim(frames: int, channels: int, rate_hz: int) -> None:
    """Refuses by the stated length. A stream that understates it is caught while decoding."""
    if frames >= _UNKNOWN_FRAMES:
        return
    if frames > LIMITS.max_duration_s * rate_hz:
        raise AudioLimitError(f"{frames / rate_hz:.1f} s long; at most {LIMITS.max_duration_s:g} s are accepted")
    if frames * channels > LIMITS.max_values:
        raise AudioLimitError(
            f"{frames * channels} samples over all channels; at most {LIMITS.max_values} are accepted"
        )


def _decode(stream: _Stream) -> Iterator[np.ndarray]:
    """Blocks [n, channels] float32, until the stream ends or passes a limit."""
    step = max(1, _BLOCK_VALUES // stream.channels)
    limit = min(int(LIMITS.max_duration_s * stream.samplerate), LIMITS.max_values // stream.channels)
    done = 0
    while True:
        try:
            block = stream.read(step, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            message = getattr(error, "error_string", None) or str(error)
            at_s = done / stream.samplerate
            raise AudioFormatError(f"damaged or truncated: decoding fails after {at_s:.1f} s ({message})") from error
        if len(block) == 0:
            return
        done += len(block)
        if done > limit:
            layout = f"with {stream.channels} channel(s) at {stream.samplerate} Hz"
            raise AudioLimitError(f"too long: at most {limit / stream.samplerate:g} s are accepted {layout}")
        yield block


def _to_float(block: np.ndarray) -> np.ndarray:
    """Samples of any real type -> float32, integers at their type's full scale."""
    if block.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused as such
            return block.astype(np.float32)
    info = np.iinfo(block.dtype)
    centre = 0.0 if block.dtype.kind == "i" else -(info.min + info.max + 1) / 2
    return ((block.astype(np.float64) + centre) * (2.0 / (float(info.max) - float(info.min) + 1.0))).astype(np.float32)


def _assemble(blocks: Iterable[np.ndarray], rate_hz: int, max_s: float | None) -> Waveform:
    """Mixes, resamples, joins and checks; stops asking for blocks once `max_s` seconds are there."""
    wanted = None if max_s is None else round(max_s * SAMPLE_RATE_HZ)
    pieces: list[Tensor] = []
    length = 0
    for piece in resample_blocks(_mono(blocks, rate_hz), rate_hz, SAMPLE_RATE_HZ):
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


def _mono(blocks: Iterable[np.ndarray], rate_hz: int) -> Iterator[Tensor]:
    """[n, channels] -> [n] means, refusing what is not finite or absurdly large."""
    done = 0
    for block in blocks:
        magnitude = float(np.abs(block).max(initial=0.0))
        if not np.isfinite(magnitude):
            at = done + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise AudioNotFiniteError(f"a sample at {at / rate_hz:.3f} s is NaN or infinite; all must be finite")
        if magnitude > LIMITS.max_magnitude:
            limit = f"{LIMITS.max_magnitude:g}"
            raise AudioLimitError(f"sample values reach {magnitude:.3g}; at most {limit} times full scale are accepted")
        done += len(block)
        yield torch.from_numpy(block.mean(axis=1, dtype=np.float32))


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
