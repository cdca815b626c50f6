"""R1: whatever a file is, reading it ends in a typed error or in valid audio, soon, in bounded memory, in a child."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiolm.audio import isolation
from audiolm.audio.files import read_comment, read_waveform
from audiolm.audio.limits import LIMITS
from audiolm.errors import AudioError, AudioFormatError, AudioLimitError
from audiolm.streams import Waveform
from tests.hostile.corpus import SINE, corpus, encoded, flac_bomb, wav, with_stream_info

EXTRA_BYTES = 512 * 2**20
SOURCES = [wav(), *(encoded(kind) for kind in ("FLAC", "OGG", "MP3", "AIFF", "CAF", "AU", "W64"))]


def read(path: Path) -> str:
    """What became of it: "audio", or the error's type."""
    try:
        waveform = read_waveform(path)
    except AudioError as error:
        outcome, told = type(error).__name__, str(error)
    else:
        outcome, told = "audio", "nothing to be told"
        check(waveform)
    assert 10 < len(told) < 500
    assert str(path) not in told
    return outcome


def check(waveform: Waveform) -> None:
    assert waveform.sample_rate_hz == 16_000
    assert LIMITS.min_duration_s <= waveform.duration_s <= LIMITS.max_duration_s
    assert bool(torch.isfinite(waveform.samples).all())
    assert float(waveform.samples.abs().max()) <= 1.0


def comment(path: Path) -> str:
    try:
        return read_comment(path)
    except AudioError:
        return ""


def test_hostile_files_end_in_a_typed_error_or_valid_audio(tmp_path):
    """A quarter of the corpus, and all of its bombs; `-m long` reads all of it."""
    path, files = tmp_path / "hostile.wav", corpus()
    assert len(files) > 400
    some = {name: content for n, (name, content) in enumerate(files.items()) if n % 4 == 0 or "bomb" in name}
    outcomes = Counter()
    for name, content in some.items():
        path.write_bytes(content)
        try:
            outcomes[read(path)] += 1
            comment(path)
        except Exception as error:
            raise AssertionError(f"{name}: {error!r}") from error
    assert len(outcomes) == 6


def test_what_is_accepted_is_told_by_the_content_and_not_by_the_name(tmp_path):
    path = tmp_path / "song.wav"
    for container, codec in (("FLAC", "PCM_24"), ("OGG", "OPUS"), ("MP3", None), ("CAF", "ALAC_16"), ("W64", None)):
        path.write_bytes(encoded(container, codec))
        assert read_waveform(path).duration_s == pytest.approx(1.0, abs=0.1)
    for container, codec in (("WAV", "GSM610"), ("WAV", "MS_ADPCM"), ("AU", "G721_32")):
        path.write_bytes(encoded(container, codec))
        with pytest.raises(AudioFormatError, match=rf"{codec} in {container} is not accepted; PCM_S8, .* in WAV"):
            read_waveform(path)


def test_denormal_numbers_become_zero_and_an_offset_is_no_sound(tmp_path):
    path = tmp_path / "x.wav"
    samples = np.concatenate([np.full(8_000, 1e-40), SINE / 32_768]).astype("<f4")
    path.write_bytes(wav(samples.tobytes(), kind=3, bits=32))
    read_samples = read_waveform(path).samples
    assert not read_samples[:8_000].any()
    assert read_samples[8_000:].any()


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "bomb.flac"
    bomb = flac_bomb(3_300)
    assert soundfile.SoundFile(_written(path, flac_bomb(2, total=131_070))).read().shape == (
        131_070,
        8,
    )  # so it does unfold
    assert len(bomb) < 200_000 < 3e9 < 3_300 * 65_535 * 8 * 4  # bytes as float32, in one go
    for content in (bomb, with_stream_info(bomb, total=96_000), with_stream_info(bomb, total=48_000 * 3_600)):
        with pytest.raises(AudioError):
            read_waveform(_written(path, content))


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


PROBE = """
import os, resource, socket, sys
from audiolm.audio import isolation
isolation._leave_the_network()
isolation._confine()
def tried(name, what):
    try:
        what()
        return f"{name}: done"
    except Exception as error:
        return f"{name}: {type(error).__name__}"
os.write(1, "\\n".join([
    tried("open", lambda: os.open("/etc/passwd", os.O_RDONLY)),
    tried("socket", socket.socket),
    tried("fork", os.fork),
    tried("more descriptors", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))),
    tried("memory", lambda: bytearray(300 * 2**20)),
    tried("some memory", lambda: bytearray(100 * 2**20)),
]).encode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit less")
def test_a_decoder_can_open_nothing_start_nothing_and_take_little(tmp_path):
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    outcomes = dict(line.split(": ") for line in done.stdout.splitlines())
    if os.geteuid() != 0 and outcomes["fork"] == "done":
        outcomes["fork"] = "BlockingIOError"  # a user with other processes may have a share of its own
    assert outcomes == {
        "open": "OSError",
        "socket": "OSError",
        "fork": "BlockingIOError",
        "more descriptors": "ValueError",
        "memory": "MemoryError",
        "some memory": "done",
    }


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", AudioLimitError, "4 s of computing and 256 MiB"),
        (isolation._HEAD.pack(b"Z", 0), AudioFormatError, "makes no sense"),
        (b"nonsense, and more", AudioFormatError, "makes no sense"),
        (isolation._HEAD.pack(b"R", 2**30), AudioFormatError, "makes no sense"),
        (isolation._HEAD.pack(b"R", 4) + (16).to_bytes(4, "little"), AudioFormatError, "makes no sense"),
        (isolation._HEAD.pack(b"E", 11) + b"SystemExit ", AudioFormatError, "makes no sense"),
        (isolation._HEAD.pack(b"E", 16) + b"AudioLimitError!", AudioFormatError, "makes no sense"),
    ],
)
def test_a_decoder_that_was_taken_over_is_not_believed(monkeypatch, tmp_path, answer, error, words):
    monkeypatch.setattr(isolation._NURSERY, "begin", lambda source, writer: os.write(writer, answer))
    with pytest.raises(error, match=words):
        read_waveform(_written(tmp_path / "x.wav", wav()))


def test_samples_are_checked_again_on_this_side(monkeypatch, tmp_path):
    for block in (np.full(20_000, np.nan, "<f4"), np.full(20_000, 1e9, "<f4")):
        messages = ((b"R", (16_000).to_bytes(4, "little")), (b"B", block.tobytes()))
        answer = b"".join(isolation._HEAD.pack(kind, len(content)) + content for kind, content in messages)
        monkeypatch.setattr(isolation._NURSERY, "begin", lambda source, writer, answer=answer: os.write(writer, answer))
        with pytest.raises(AudioFormatError, match="makes no sense"):
            read_waveform(_written(tmp_path / "x.wav", wav()))


def test_a_decoder_that_hangs_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(isolation, "LIMITS", type(LIMITS)(max_decoding_s=0.2))
    held = []
    monkeypatch.setattr(isolation._NURSERY, "begin", lambda source, writer: held.append(os.dup(writer)))
    with pytest.raises(AudioLimitError, match=r"longer than the 0\.2 s"):
        read_waveform(_written(tmp_path / "x.wav", wav()))
    os.close(held[0])


def test_decoders_come_back_after_their_nursery_was_killed(tmp_path):
    path = _written(tmp_path / "x.wav", wav())
    read_waveform(path)
    isolation._NURSERY._process.kill()
    isolation._NURSERY._process.wait()
    assert read_waveform(path).duration_s == 1.0


def test_reading_leaves_no_descriptor_open(tmp_path):
    def num_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    path, bad = _written(tmp_path / "x.wav", wav(SINE.tobytes() * 30)), _written(tmp_path / "bad.wav", wav(rate=1))
    read_waveform(path)
    before = num_open()
    for _ in range(20):
        read_waveform(path, max_s=1.0)
        with pytest.raises(AudioLimitError):
            read_waveform(bad)
    assert num_open() == before


def test_many_can_be_read_at_once(tmp_path):
    path, found = _written(tmp_path / "x.wav", wav()), []
    threads = [threading.Thread(target=lambda: found.append(read_waveform(path).duration_s)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 12


damage = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=12)


def damaged(tmp_path: Path, source: bytes, changes: list[tuple[int, int]], keep: float, near: int) -> Path:
    content = bytearray(source)
    for place, value in changes:
        content[place % min(near, len(content))] = value
    return _written(tmp_path / "hostile.bin", bytes(content[: max(1, int(len(content) * keep))]))


@given(st.sampled_from(SOURCES), damage, st.floats(0.01, 1.0), st.sampled_from([64, 400, 10**6]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_damaged_files_end_in_a_typed_error_or_valid_audio(tmp_path_factory, source, changes, keep, near):
    path = damaged(tmp_path_factory.getbasetemp(), source, changes, keep, near)
    read(path)
    comment(path)


@pytest.mark.long
@given(st.sampled_from(SOURCES), damage, st.floats(0.01, 1.0), st.sampled_from([64, 400, 10**6]))
@settings(max_examples=3_000, deadline=None, suppress_health_check=list(HealthCheck))
def test_thousands_of_damaged_files(tmp_path_factory, source, changes, keep, near):
    path = damaged(tmp_path_factory.getbasetemp(), source, changes, keep, near)
    read(path)
    comment(path)


class Watch:
    """The largest memory that any decoder took, as the system counts it."""

    def __init__(self, nursery: int) -> None:
        self.most_kib, self._children = 0, Path(f"/proc/{nursery}/task/{nursery}/children")
        self._over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def stop(self) -> int:
        self._over.set()
        return self.most_kib

    def _look(self) -> None:
        while not self._over.wait(0.002):
            for child in self._children.read_text().split():
                try:
                    status = Path(f"/proc/{child}/status").read_text()
                except OSError:
                    continue
                told = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
                self.most_kib = max([self.most_kib, *told])


@pytest.mark.long
def test_all_of_the_corpus_within_time_and_memory(tmp_path):
    """Prints the figures. Seconds are by the clock: run it on a machine that does nothing else."""
    path, files = tmp_path / "hostile.wav", corpus()
    read(_written(path, wav()))
    watch = Watch(isolation._NURSERY._process.pid)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, seconds = Counter(), {}
    for name, content in files.items():
        path.write_bytes(content)
        began = time.perf_counter()
        outcomes[read(path)] += 1
        seconds[name] = time.perf_counter() - began
        comment(path)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    slowest = sorted(seconds, key=seconds.__getitem__)[-5:]
    print(f"\n{len(files)} hostile files: {dict(outcomes)}")
    print(
        f"median {np.median(list(seconds.values())) * 1000:.0f} ms; slowest: "
        + ", ".join(f"{name} {seconds[name]:.2f} s" for name in slowest)
    )
    print(f"this process grew by {grown_mib:.0f} MiB, the largest decoder took {watch.stop() / 1024:.0f} MiB")
    assert max(seconds.values()) < 6.0
    assert (grown_mib + watch.most_kib / 1024) * 2**20 < EXTRA_BYTES
