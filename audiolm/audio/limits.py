"""Every limit on recordings that are read; the README, the page and the messages print them from here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AudioLimits:
    """What a recording may be, and what decoding it may cost."""

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
    max_decoding_cpu_s: int = 4
    max_decoding_bytes: int = 256 * 2**20  # address space of the decoder's process, on top of what it starts with
    max_decoding_s: float = 5.0  # by the clock


LIMITS = AudioLimits()
CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
CODECS = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_II", "MPEG_LAYER_III", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32"),
)
"""As libsndfile names what it finds in a file, whatever the file is called. FLAC's codecs are its PCM widths."""
