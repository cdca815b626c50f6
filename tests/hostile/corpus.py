"""Hostile recordings, made by code: name -> bytes. Headers that lie, bombs, damage, absurd numbers, other formats."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO

import numpy as np
import soundfile

RATE_HZ = 16_000
SINE = (8000 * np.sin(np.arange(RATE_HZ) / 9)).astype("<i2")
RATES_HZ = (0, 1, 2, 100, 3_999, 4_000, 192_000, 192_001, 655_350, 2_000_000_000, 0x7FFFFFFF, 0xFFFFFFFF)
CHANNELS = (0, 1, 2, 8, 9, 32, 255, 1024, 65_535)
BITS = (0, 1, 4, 7, 8, 12, 16, 24, 32, 64, 65_535)
SIZES = (0, 1, 3, 100, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
WAV_KINDS = (0, 1, 2, 3, 6, 7, 0x11, 0x31, 0x40, 0x45, 0x55, 0x161, 0x1234, 0xFFFE, 0xFFFF)


def wav(
    data: bytes = SINE.tobytes(),
    *,
    kind: int = 1,
    channels: int = 1,
    rate: int = RATE_HZ,
    bits: int = 16,
    size: int | None = None,
    riff: int | None = None,
    fmt_size: int = 16,
    extra: bytes = b"",
) -> bytes:
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    told = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", fmt_size) + fmt + extra + b"data" + struct.pack("<I", told) + data
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


@lru_cache
def encoded(container: str, codec: str | None = None, channels: int = 1) -> bytes:
    """One second of a tone, as libsndfile writes it."""
    file = BytesIO()
    rate = 48_000 if codec == "OPUS" else RATE_HZ
    samples = np.stack([np.tile(SINE, rate // RATE_HZ)] * channels, axis=1)
    soundfile.write(file, samples, rate, format=container, subtype=codec)
    return file.getvalue()


def with_stream_info(
    flac: bytes, *, rate: int | None = None, channels: int | None = None, total: int | None = None
) -> bytes:
    """The FLAC with other claims in its STREAMINFO: 20 bits rate, 3 channels - 1, 5 bits - 1, 36 total samples."""
    fields = int.from_bytes(flac[18:26], "big")
    rate = fields >> 44 if rate is None else rate
    channels = (fields >> 41 & 7) + 1 if channels is None else channels
    total = fields & (1 << 36) - 1 if total is None else total
    claims = rate << 44 | (channels - 1) << 41 | fields & 31 << 36 | total
    return flac[:18] + claims.to_bytes(8, "big") + flac[26:]


def flac_bomb(num_frames: int, channels: int = 8, total: int = 0) -> bytes:
    """`num_frames` FLAC frames of 65535 silent samples a channel: some 30 bytes each for a megabyte of samples."""
    info = struct.pack(">HH", 65_535, 65_535) + bytes(6)
    info += (48_000 << 44 | channels - 1 << 41 | 15 << 36 | total).to_bytes(8, "big") + bytes(16)
    frames = []
    for number in range(num_frames):
        # sync, fixed blocks; size in 16 bits, rate of STREAMINFO; independent channels, bits of STREAMINFO
        head = b"\xff\xf8" + bytes([0x70, (channels - 1) << 4]) + _utf8_number(number) + struct.pack(">H", 65_534)
        head += bytes([_crc(head, 8, 0x07)])
        frame = head + bytes(3) * channels  # a constant subframe: its type, and one sample of 16 bits
        frames.append(frame + _crc(frame, 16, 0x8005).to_bytes(2, "big"))
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + b"".join(frames)


def _utf8_number(number: int) -> bytes:
    return chr(number).encode("utf-8", "surrogatepass")


def _crc(data: bytes, width: int, polynomial: int) -> int:
    value, top, mask = 0, 1 << (width - 1), (1 << width) - 1
    for byte in data:
        value ^= byte << (width - 8)
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
    return value


def corpus() -> dict[str, bytes]:
    """All of them, the same in every run."""
    files = dict(_no_audio())
    for maker in (_wav_claims, _float_values, _other_containers, _flac, _streams, _damaged, _truncated, _bombs):
        for name, content in maker():
            assert name not in files, name
            files[name] = content
    return files


def _no_audio() -> Iterator[tuple[str, bytes]]:
    noise = np.random.default_rng(0).bytes
    yield from {
        "empty": b"",
        "one byte": b"R",
        "text": b"not audio at all\n" * 500,
        "html": b"<html><script>alert(1)</script>" * 100,
        "zip": b"PK\3\4" + noise(500),
        "elf": b"\x7fELF" + noise(500),
        "pickle": b"\x80\4\x95" + noise(500),
        "playlist": b"#EXTM3U\nhttp://127.0.0.1/x.wav\n",
        "mp4": b"\0\0\0\x20ftypM4A " + noise(5000),
        "webm": b"\x1aE\xdf\xa3" + noise(5000),
        "midi": b"MThd\0\0\0\6" + noise(500),
        "ones": b"\xff" * 10_000,
        "zeros": bytes(10_000),
    }.items()
    for magic in (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b"OggS", b"ID3", b"caff", b".snd", b"\xff\xfb"):
        yield f"{magic!r} alone", magic
        yield f"{magic!r} and zeros", magic + bytes(2_000)
        yield f"{magic!r} and ones", magic + b"\xff" * 2_000
        yield f"{magic!r} and noise", magic + noise(5_000)


def _wav_claims() -> Iterator[tuple[str, bytes]]:
    for rate in RATES_HZ:
        yield f"wav {rate} Hz", wav(rate=rate)
    for channels in CHANNELS:
        yield f"wav {channels} channels", wav(SINE.tobytes() * 4, channels=channels)
    for bits in BITS:
        yield f"wav {bits} bits", wav(bits=bits)
        yield f"wav float {bits} bits", wav(kind=3, bits=bits)
    for size in SIZES:
        yield f"wav data of {size}", wav(size=size)
        yield f"wav riff of {size}", wav(riff=size)
        yield f"wav fmt of {size}", wav(fmt_size=size)
        yield f"wav list of {size}", wav(extra=b"LIST" + struct.pack("<I", size) + b"INFO")
        yield f"wav fact of {size}", wav(kind=3, bits=32, extra=b"fact\4\0\0\0" + struct.pack("<I", size))
    for kind in WAV_KINDS:
        yield f"wav encoding {kind:#x}", wav(kind=kind)
        yield f"wav encoding {kind:#x}, 4 bits", wav(kind=kind, bits=4)
    for count in (0, 1, 2, 3, 7_999):
        yield f"wav of {count} samples", wav(SINE[:count].tobytes())
    yield "wav thousands of chunks", wav(extra=b"junk\0\0\0\0" * 20_000)
    yield "wav chunk in chunk", wav(extra=b"LIST\x20\0\0\0INFOICMT\xff\xff\xff\xff" + bytes(20))
    yield "wav only lists", b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\4\0\0\0INFO" * 5_000
    yield "wav two formats", wav(extra=b"fmt \x10\0\0\0" + struct.pack("<HHIIHH", 3, 8, 192_000, 1, 1, 64))


def _float_values() -> Iterator[tuple[str, bytes]]:
    values = {
        "nan": [np.nan] * RATE_HZ,
        "one nan at the end": [0.1, -0.1] * 8_000 + [np.nan],
        "infinite": [np.inf, 0.1] * 8_000,
        "minus infinite": [-np.inf] * RATE_HZ,
        "huge": [3e38, -3e38] * 8_000,
        "just too large": [65_537.0, -65_537.0] * 8_000,
        "large": [60_000.0, -60_000.0] * 8_000,
        "denormal": [1e-40, -1e-40] * 8_000,
        "denormal and sound": [1e-40] * 8_000 + list(SINE / 32_768) + [1e-42] * 8_000,
        "constant": [0.5] * RATE_HZ,
        "constant and sound": list(0.9 + SINE / 400_000),
        "silence": [0.0] * RATE_HZ,
        "one click": [0.0] * 8_000 + [1.0] + [0.0] * 8_000,
    }
    for name, numbers in values.items():
        yield f"float {name}", wav(np.asarray(numbers, "<f4").tobytes(), kind=3, bits=32)
        yield f"double {name}", wav(np.asarray(numbers, "<f8").tobytes(), kind=3, bits=64)
    yield "float long denormal", wav(np.full(2_000_000, 1e-40, "<f4").tobytes(), kind=3, bits=32)


def _other_containers() -> Iterator[tuple[str, bytes]]:
    accepted = (("AIFF", None), ("AU", None), ("CAF", None), ("W64", None), ("RF64", None), ("CAF", "ALAC_16"))
    unusual = (("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610"), ("WAV", "G721_32"), ("AU", "G723_24"))
    foreign = (
        ("VOC", None),
        ("SVX", None),
        ("NIST", None),
        ("PAF", None),
        ("IRCAM", None),
        ("AVR", None),
        ("XI", None),
    )
    for container, codec in (*accepted, *unusual, *foreign):
        name = f"{container} {codec or ''}".strip().lower()
        content = encoded(container, "DPCM_16" if container == "XI" else codec)
        yield name, content
        yield f"{name} of ones", content[:24] + b"\xff" * 24 + content[48:]
        yield f"{name} of zeros", content[:16] + bytes(24) + content[40:]
        yield f"{name} half", content[: len(content) // 2]


def _flac() -> Iterator[tuple[str, bytes]]:
    flac = encoded("FLAC")
    for rate in (0, 1, 3_999, 192_001, (1 << 20) - 1):
        yield f"flac {rate} Hz", with_stream_info(flac, rate=rate)
    for channels in range(1, 9):
        yield f"flac {channels} channels claimed", with_stream_info(flac, channels=channels)
    for total in (0, 1, 3, 1 << 31, (1 << 36) - 1):
        yield f"flac {total} samples claimed", with_stream_info(flac, total=total)
    yield "flac of metadata alone", b"fLaC" + b"\1\0\0\0" * 50_000
    yield "flac behind id3", b"ID3\4\0\0\0\0\0\0" + flac
    yield "flac of metadata behind id3", b"ID3\4\0\0\0\0\0\0fLaC" + b"\1\0\0\0" * 50_000
    yield "flac picture of 16 MiB claimed", flac[:42] + b"\6\xff\xff\xff" + flac[42:]
    yield "flac comments of 4 GiB claimed", flac[:42] + b"\4\0\0\x10" + b"\xff" * 16 + flac[42:]
    yield "flac seek table of 2^20", flac[:42] + b"\3\x0f\xff\xff" + flac[42:]
    yield "flac twice", flac + flac


def _streams() -> Iterator[tuple[str, bytes]]:
    vorbis, opus, mp3 = encoded("OGG", "VORBIS"), encoded("OGG", "OPUS"), encoded("MP3")
    for name, content in (("vorbis", vorbis), ("opus", opus)):
        yield f"{name} chained", content * 20
        yield f"{name} of another's pages", content[:200] + encoded("OGG", "OPUS" if name == "vorbis" else "VORBIS")
        yield (
            f"{name} 255 channels",
            content.replace(b"OpusHead\1\1", b"OpusHead\1\xff").replace(b"\1vorbis\0\0\0\0\1", b"\1vorbis\0\0\0\0\xff"),
        )
        yield f"{name} granule 2^63", content[:-3000] + content[-3000:].replace(b"OggS\0\4", b"OggS\0\4" + b"\xff" * 8)
    yield "mp3 behind text", b"words " * 500 + mp3
    yield "mp3 in wav", wav(mp3, kind=0x55)
    yield "mp3 a thousand times", mp3 * 100
    yield "mp3 syncs alone", b"\xff\xfb\x90\x64" * 4_000
    yield "mp3 id3 of 256 MiB", b"ID3\4\0\0\x7f\x7f\x7f\x7f" + mp3
    yield "mp3 tag after tag", b"ID3\4\0\0\0\0\0\0" * 50_000 + mp3


def _damaged() -> Iterator[tuple[str, bytes]]:
    for container, codec in _SOURCES:
        content = encoded(container, codec, 2)
        for seed in range(8):
            generator = np.random.default_rng(seed)
            bytes_ = bytearray(content)
            for _ in range(4 ** (seed % 4)):
                within = 200 if seed % 2 else len(bytes_)
                bytes_[generator.integers(0, within)] = generator.integers(0, 256)
            yield f"{container} {codec} damaged {seed}", bytes(bytes_)


def _truncated() -> Iterator[tuple[str, bytes]]:
    for container, codec in _SOURCES:
        content = encoded(container, codec, 2)
        for part in (0.002, 0.01, 0.1, 0.5, 0.99):
            yield f"{container} {codec} {part:.1%}", content[: int(len(content) * part)]


def _bombs() -> Iterator[tuple[str, bytes]]:
    bomb = flac_bomb(3_300)  # 100 kB, 3.5 GB when read as float32 in one go
    yield "flac bomb", bomb
    yield "flac bomb that claims 2 s", with_stream_info(bomb, total=96_000)
    yield "flac bomb that claims an hour", with_stream_info(bomb, total=48_000 * 3_600)
    yield "flac bomb of one channel", flac_bomb(20_000, channels=1)
    yield "opus of ten hours", encoded("OGG", "OPUS") * 2_000
    yield "wav of silence", wav(bytes(20_000_000), rate=RATE_HZ)
    yield "wav of 8 channels", wav(bytes(4) + SINE.tobytes() * 100, channels=8, rate=192_000)
    yield "wav of 300 s at 192 kHz", wav(SINE.tobytes() * 3_600, rate=192_000)
    yield "wav just too long", wav(SINE[:4].tobytes() * 600_001, rate=4_000)


_SOURCES = (
    ("WAV", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("CAF", "PCM_16"),
    ("AU", "ULAW"),
)
