"""The audio door: what is accepted comes out as 16 kHz mono, all else is a typed error that names limit and value."""

import json
import os

import numpy as np
import pytest
import soundfile
import torch

from audiolm.audio.files import LIMITS, from_array, read_comment, read_waveform, write_wav
from audiolm.errors import (
    AudioFormatError,
    AudioLimitError,
    AudioNotFiniteError,
    AudioSilentError,
    AudioTooShortError,
)
from audiolm.streams import Waveform


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("MP3", None), ("AIFF", "PCM_16")],
)
@pytest.mark.parametrize("rate", [11025, 44100, 16000])
def test_files_of_any_kind_and_rate_become_16_khz_mono(tmp_path, kind, subtype, rate):
    path = tmp_path / "name.bin"  # the content decides, not the name
    soundfile.write(path, np.stack([tone(1.2, rate)] * 2, axis=1), rate, format=kind, subtype=subtype)
    waveform = read_waveform(path)
    assert waveform.sample_rate_hz == 16_000
    assert waveform.samples.dtype == torch.float32
    assert waveform.duration_s == pytest.approx(1.2, abs=0.06)  # codecs pad
    spectrum = torch.fft.rfft(waveform.samples[:16_000]).abs()
    assert int(spectrum.argmax()) == 440


def test_only_the_first_seconds_are_decoded_when_asked(tmp_path):
    samples = tone(20.0, 16_000)
    samples[16_000 * 15] = np.nan  # beyond what is asked for: never looked at
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert read_waveform(path, max_s=2.5).duration_s == 2.5
    with pytest.raises(AudioNotFiniteError, match=r"15\.000 s"):
        read_waveform(path)


def test_twenty_minutes_are_refused_naming_the_limit_and_the_length(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(20 * 60 * 4000, np.int16), 4000)
    for max_s in (None, 3.0):
        with pytest.raises(AudioLimitError, match=r"1200\.0 s long; at most 600 s"):
            read_waveform(path, max_s=max_s)


def test_a_stream_of_unstated_length_is_read_and_still_limited(tmp_path):
    path = tmp_path / "piped.flac"
    for seconds, accepted in ((1.0, True), (700.0, False)):
        soundfile.write(path, tone(seconds, 4000), 4000)
        data = bytearray(path.read_bytes())
        data[21] &= 0xF0
        data[22:26] = bytes(4)  # STREAMINFO's total: 0 = unknown, as encoders write into a pipe
        path.write_bytes(data)
        if accepted:
            assert read_waveform(path).duration_s == seconds
        else:
            with pytest.raises(AudioLimitError, match="600 s"):
                read_waveform(path)


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"", AudioFormatError, "0 bytes"),
        (b"This is a text file, named .wav.\n" * 99, AudioFormatError, "not an audio file"),
        (b"RIFF\xff\xff\xff\xffWAVE" + b"junk" * 99, AudioFormatError, "not readable as audio"),
        (b"\xff\xfb\x90\x64" * 9_000, AudioFormatError, "no sound found in it"),
        (b"fLaC" + b"\1\0\0\0" * 999, AudioFormatError, "more than 128 FLAC metadata blocks"),
    ],
)
def test_what_is_not_audio_is_refused(tmp_path, content, error, words):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(error, match=words):
        read_waveform(path)


def test_paths_that_are_no_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "missing.wav", tmp_path / "pipe", "a\0b"):
        with pytest.raises(AudioFormatError):
            read_waveform(path)


@pytest.mark.parametrize(
    ("samples", "rate", "error", "words"),
    [
        (np.zeros(16_000, np.float32), 16_000, AudioSilentError, "-60 dB"),
        (np.full(16_000, 0.5, np.float32), 16_000, AudioSilentError, "-60 dB"),
        (tone(1.0, 16_000) * 1e-4, 16_000, AudioSilentError, "loudest moment"),
        (np.zeros(0, np.float32), 16_000, AudioTooShortError, "0 s of sound; at least 0.5 s"),
        (np.ones(1, np.float32), 16_000, AudioTooShortError, "at least 0.5 s"),
        (tone(0.2, 16_000), 16_000, AudioTooShortError, "0.2 s of sound"),
        (np.full(16_000, np.nan, np.float32), 16_000, AudioNotFiniteError, r"0\.000 s"),
        (np.full(16_000, np.inf, np.float32), 16_000, AudioNotFiniteError, "infinite"),
        (tone(1.0, 16_000) * 1e30, 16_000, AudioLimitError, "65536 times full scale"),
        (np.zeros((16_000, 32), np.float32), 16_000, AudioLimitError, "32 channels; 1 to 8"),
        (tone(1.0, 16_000), 1, AudioLimitError, "1 Hz; 4000 to 192000 Hz"),
        (tone(1.0, 16_000), 1_000_000, AudioLimitError, "1000000 Hz; 4000 to 192000 Hz"),
    ],
)
def test_unusable_sound_is_refused_from_file_and_from_array(tmp_path, samples, rate, error, words):
    path = tmp_path / "x.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(error, match=words):
        read_waveform(path)
    with pytest.raises(error, match=words):
        from_array(samples, rate)


def test_microphone_samples_of_every_type_give_the_same_waveform():
    wave = tone(1.0, 48_000)
    reference = from_array(wave, 48_000).samples
    for kind in (np.int16, np.int32):
        stereo = np.stack([np.round(wave * np.iinfo(kind).max).astype(kind)] * 2, axis=1)
        assert torch.allclose(from_array(stereo, 48_000).samples, reference, atol=1e-4)
    unsigned = np.round(wave * 127 + 128).astype(np.uint8)
    assert torch.allclose(from_array(unsigned, 48_000).samples, reference, atol=1e-2)
    assert torch.allclose(from_array(wave.astype(np.float64), 48_000).samples, reference, atol=1e-6)


@pytest.mark.parametrize(
    "samples", [np.zeros((2, 2, 2), np.int16), np.zeros(16_000, bool), np.zeros(9, object), np.zeros(9, complex)]
)
def test_arrays_that_are_no_samples_are_refused(samples):
    with pytest.raises(AudioFormatError):
        from_array(samples, 16_000)
    with pytest.raises(AudioFormatError, match="whole number"):
        from_array(np.zeros(9, np.int16), 16_000.5)


def test_sound_beyond_full_scale_is_scaled_down_to_it():
    assert float(from_array(tone(1.0, 16_000) * 32768, 16_000).samples.abs().max()) == pytest.approx(1.0)


def test_a_written_file_reads_back_as_16_bit_pcm_with_its_comment(tmp_path):
    waveform = Waveform(torch.from_numpy(tone(1.0, 16_000)))
    receipt = json.dumps({"seeds": list(range(900)), "name": "Händel ♫"}, ensure_ascii=False)
    assert len(receipt) > 4000
    path = tmp_path / "out.wav"
    write_wav(path, waveform, receipt)
    assert read_comment(path) == receipt
    stored, rate = soundfile.read(path, dtype="int16")
    assert rate == 16_000
    assert np.array_equal(stored, waveform.int16().numpy())
    assert torch.allclose(read_waveform(path).samples, waveform.samples, atol=1e-4)
    write_wav(path, waveform)
    assert read_comment(path) == ""


def test_comments_beyond_the_limit_and_comments_of_other_files_are_refused(tmp_path):
    waveform = Waveform(torch.zeros(100))
    with pytest.raises(AudioLimitError, match=str(LIMITS.max_comment_bytes)):
        write_wav(tmp_path / "x.wav", waveform, "x" * (LIMITS.max_comment_bytes + 1))
    with pytest.raises(AudioFormatError, match="NUL"):
        write_wav(tmp_path / "x.wav", waveform, "a\0b")
    soundfile.write(tmp_path / "x.flac", tone(1.0, 16_000), 16_000)
    for name in ("x.flac", "missing.wav"):
        with pytest.raises(AudioFormatError):
            read_comment(tmp_path / name)
