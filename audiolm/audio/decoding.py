"""From the bytes of a recording to mono blocks, with every limit checked before and during it.

What a header claims is used to refuse early, never to allocate. This module needs numpy and soundfile alone, so that a
process of its own, which `audiolm.audio.isolation` keeps, can run it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

import numpy as np
import soundfile

from audiolm.audio.limits import CODECS, CONTAINERS, LIMITS
from audiolm.errors import AudioFormatError, AudioLimitError, AudioNotFiniteError

BLOCK_VALUES = 2**17
_UNKNOWN_FRAMES = 2**62  # libsndfile's count where a stream does not say how long it is
_MAX_FLAC_BLOCKS = 128
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b".snd")
_DENORMAL = np.float32(1e-30)  # softer than any sound; arithmetic on denormal numbers is a hundred times slower


def open_recording(path: str | os.PathLike[str]) -> int:
    """A descriptor of a regular file of a known kind and an accepted size; nothing of it is decoded yet.

    Raises AudioFormatError, AudioLimitError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioFormatError(f"the file cannot be opened: {reason}") from error
    try:
        _check_file(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def decode(descriptor: int) -> tuple[int, Iterator[np.ndarray]]:
    """(sample rate in Hz, blocks [n] float32 of the mean over channels) of what `open_recording` opened.

    The blocks end with the stream, or raise as soon as it passes a limit. Raises AudioFormatError, AudioLimitError,
    AudioNotFiniteError.
    """
    stream = _open_stream(descriptor)
    if stream.format not in CONTAINERS or stream.subtype not in CODECS:
        raise AudioFormatError(
            f"{stream.subtype} in {stream.format} is not accepted; {', '.join(CODECS)} are, in {', '.join(CONTAINERS)}"
        )
    check_layout(stream.channels, stream.samplerate)
    check_claim(stream.frames, stream.channels, stream.samplerate)
    return stream.samplerate, mono(_blocks(stream), stream.samplerate)


def check_layout(channels: int, rate_hz: int) -> None:
    """Raises AudioLimitError."""
    if not 1 <= channels <= LIMITS.max_channels:
        raise AudioLimitError(f"{channels} channels; 1 to {LIMITS.max_channels} are accepted")
    if not LIMITS.min_rate_hz <= rate_hz <= LIMITS.max_rate_hz:
        limits = f"{LIMITS.min_rate_hz} to {LIMITS.max_rate_hz} Hz"
        raise AudioLimitError(f"a sample rate of {rate_hz} Hz; {limits} are accepted")


def check_claim(frames: int, channels: int, rate_hz: int) -> None:
    """Refuses by the stated length. A stream that understates it is caught while decoding. Raises AudioLimitError."""
    if frames >= _UNKNOWN_FRAMES:
        return
    if frames > LIMITS.max_duration_s * rate_hz:
        raise AudioLimitError(f"{frames / rate_hz:.1f} s long; at most {LIMITS.max_duration_s:g} s are accepted")
    if frames * channels > LIMITS.max_values:
        raise AudioLimitError(
            f"{frames * channels} samples over all channels; at most {LIMITS.max_values} are accepted"
        )


def mono(blocks: Iterable[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    """[n, channels] -> [n] means, refusing what is not finite or absurdly large; denormal numbers become zero.

    Raises AudioNotFiniteError, AudioLimitError.
    """
    done = 0
    for block in blocks:
        magnitudes = np.abs(block)
        magnitude = float(magnitudes.max(initial=0.0))
        if not np.isfinite(magnitude):
            at = done + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise AudioNotFiniteError(f"a sample at {at / rate_hz:.3f} s is NaN or infinite; all must be finite")
        if magnitude > LIMITS.max_magnitude:
            limit = f"{LIMITS.max_magnitude:g}"
            raise AudioLimitError(f"sample values reach {magnitude:.3g}; at most {limit} times full scale are accepted")
        done += len(block)
        yield np.where(magnitudes < _DENORMAL, np.float32(0), block).mean(axis=1, dtype=np.float32)


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


def _blocks(stream: _Stream) -> Iterator[np.ndarray]:
    """Blocks [n, channels] float32, until the stream ends or passes a limit."""
    step = max(1, BLOCK_VALUES // stream.channels)
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
