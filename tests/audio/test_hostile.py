"""Hostile files end in a typed error or in valid audio, in bounded memory."""

import contextlib
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from audiolm.audio.files import read_comment, read_waveform
from audiolm.errors import AudioError

PCM = (8000 * np.sin(np.arange(16_000) / 9)).astype("<i2").tobytes()


def wav(data=PCM, *, kind=1, channels=1, rate=16_000, bits=16, size=None, riff=None, fmt_size=16, extra=b""):
    size = len(data) if size is None else size
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", kind, channels, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    body = b"WAVEfmt " + struct.pack("<I", fmt_size) + fmt + extra + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body) if riff is None else riff) + body


def floats(values, rate=16_000):
    return wav(np.asarray(values, "<f4").tobytes(), kind=3, bits=32, rate=rate)


def encoded(folder: Path, kind: str, samples=None, rate: int = 16_000) -> bytes:
    path = folder / f"source.{kind}"
    samples = np.frombuffer(PCM, "<i2") if samples is None else samples
    soundfile.write(path, samples, rate, format=kind)
    return path.read_bytes()


def with_stream_info(flac: bytes, *, rate=None, channels=None, total=None) -> bytes:
    """The FLAC with other claims in its STREAMINFO: 20 bits rate, 3 channels - 1, 5 bits - 1, 36 total samples."""
    fields = int.from_bytes(flac[18:26], "big")
    rate = fields >> 44 if rate is None else rate
    channels = (fields >> 41 & 7) + 1 if channels is None else channels
    total = fields & (1 << 36) - 1 if total is None else total
    claims = rate << 44 | (channels - 1) << 41 | fields & 31 << 36 | total
    return flac[:18] + claims.to_bytes(8, "big") + flac[26:]


def wav_files() -> dict[str, bytes]:
    good = wav()
    return {
        "empty": b"",
        "one byte": b"R",
        "text": b"not audio at all\n" * 500,
        "html": b"<html>" * 100,
        "magic alone": b"RIFF",
        "header alone": good[:44],
        "half a header": good[:20],
        "truncated": good[:9000],
        "truncated in a sample": good[:9001],
        "data size 4 GiB": wav(size=0xFFFFFFFF, riff=0xFFFFFFFF),
        "data size 2 GiB": wav(size=0x7FFFFFFF),
        "data size 0": wav(size=0),
        "data size small": wav(size=100),
        "riff size 0": wav(riff=0),
        "fmt size 4 GiB": wav(fmt_size=0xFFFFFFFF),
        "fmt size 0": wav(fmt_size=0),
        "no samples": wav(b""),
        "one sample": wav(b"\1\2"),
        "0 Hz": wav(rate=0),
        "1 Hz": wav(rate=1),
        "3 999 Hz": wav(rate=3_999),
        "2 GHz": wav(rate=2_000_000_000),
        "4 GHz": wav(rate=0xFFFFFFFF),
        "191 999 Hz": wav(PCM * 7, rate=191_999),
        "0 channels": wav(channels=0),
        "32 channels": wav(channels=32),
        "1024 channels": wav(channels=1024),
        "65535 channels": wav(channels=65_535),
        "0 bits": wav(bits=0),
        "1 bit": wav(bits=1),
        "24 bits": wav(bits=24),
        "65535 bits": wav(bits=65_535),
        "unknown encoding": wav(kind=0x1234),
        "adpcm without block size": wav(kind=2, bits=4),
        "gsm": wav(kind=0x31),
        "mp3 in wav": wav(kind=0x55),
        "silence": wav(bytes(40_000)),
        "nan": floats([np.nan] * 16_000),
        "one nan": floats([0.1, -0.1] * 8_000 + [np.nan]),
        "infinite": floats([np.inf, 0.1] * 8_000),
        "huge": floats([3e38, -3e38] * 8_000),
        "denormal": floats([1e-40, -1e-40] * 8_000),
        "thousands of chunks": wav(extra=b"junk\0\0\0\0" * 20_000),
        "comment of 4 GiB": wav(extra=b"LIST\xff\xff\xff\xffINFOICMT\xff\xff\xff\xff"),
        "only lists": b"RIFF\xff\xff\xff\xffWAVE" + b"LIST\4\0\0\0INFO" * 5_000,
        "other magics": b"caff" + bytes(500),
        "w64": b"riff" + bytes(500),
        "aiff": b"FORM\xff\xff\xff\xffAIFFCOMM\xff\xff\xff\xff" + bytes(500),
        "au": b".snd" + b"\xff" * 500,
        "id3 of 256 MiB": b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(500),
        "mpeg sync alone": b"\xff\xfb\x90\x64" * 4_000,
        "ones": b"\xff" * 10_000,
    }


def encoded_files(folder: Path) -> dict[str, bytes]:
    flac, ogg, mp3 = (encoded(folder, kind) for kind in ("FLAC", "OGG", "MP3"))
    noise = np.random.default_rng(0).bytes(64)
    return {
        "flac truncated": flac[: len(flac) // 2],
        "flac header alone": flac[:42],
        "flac of 49 days": with_stream_info(flac, total=(1 << 36) - 1),
        "flac of unknown length": with_stream_info(flac, total=0),
        "flac of 3 samples": with_stream_info(flac, total=3),
        "flac 0 Hz": with_stream_info(flac, rate=0),
        "flac 1 Hz": with_stream_info(flac, rate=1),
        "flac 1 MHz": with_stream_info(flac, rate=(1 << 20) - 1),
        "flac channels change": with_stream_info(flac, channels=8),
        "flac of metadata alone": b"fLaC" + b"\1\0\0\0" * 50_000,
        "flac behind id3": b"ID3\4\0\0\0\0\0\0" + flac,
        "flac of metadata behind id3": b"ID3\4\0\0\0\0\0\0fLaC" + b"\1\0\0\0" * 50_000,
        "flac damaged": flac[: len(flac) // 2] + noise + flac[len(flac) // 2 + 64 :],
        "flac twice": flac + flac,
        "ogg truncated": ogg[: len(ogg) // 2],
        "ogg magic": ogg[:60],
        "ogg damaged": ogg[:3000] + noise + ogg[3064:],
        "ogg chained": ogg * 20,
        "mp3 truncated": mp3[: len(mp3) // 2],
        "mp3 damaged": mp3[:700] + noise + mp3[764:],
        "id3 and text": b"ID3\3\0\0\0\0\0\0" + b"words " * 500,
    }


def outcome(path: Path) -> None:
    try:
        waveform = read_waveform(path)
    except AudioError:
        return
    assert waveform.sample_rate_hz == 16_000
    assert 0.5 <= waveform.duration_s <= 600.0
    assert bool(torch.isfinite(waveform.samples).all())
    assert float(waveform.samples.abs().max()) <= 1.0


def test_hostile_files_end_in_a_typed_error_or_valid_audio(tmp_path):
    files = wav_files() | encoded_files(tmp_path)
    assert len(files) >= 60
    path = tmp_path / "hostile.wav"
    for name, content in files.items():
        path.write_bytes(content)
        try:
            outcome(path)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
        with contextlib.suppress(AudioError):
            read_comment(path)


@pytest.mark.parametrize("seed", range(4))
def test_randomly_damaged_files_end_in_a_typed_error_or_valid_audio(tmp_path, seed):
    generator = np.random.default_rng(seed)
    sources = [wav(), *(encoded(tmp_path, kind) for kind in ("FLAC", "OGG", "MP3"))]
    path = tmp_path / "hostile.bin"
    for source in sources:
        for _ in range(15):
            content = bytearray(source)
            for _ in range(generator.integers(1, 20)):
                content[generator.integers(0, min(len(content), 200))] = generator.integers(0, 256)
            path.write_bytes(content[: generator.integers(1, len(content) + 1)])
            outcome(path)


def test_a_compression_bomb_is_refused_in_little_memory(tmp_path):
    """200 s of silence in 8 channels at 48 kHz: 80 kB that unfold to 600 MB in a plain read."""
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 48_000, 8, format="FLAC") as file:
        silence = np.zeros((480_000, 8), np.int16)
        for _ in range(20):
            file.write(silence)
    content = path.read_bytes()
    assert len(content) < 2**17
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for claim in (None, 0, 96_000):  # as it is, of unknown length, and claiming 2 s
        path.write_bytes(with_stream_info(content, total=claim))
        with pytest.raises(AudioError):
            read_waveform(path)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 128 * 1024
