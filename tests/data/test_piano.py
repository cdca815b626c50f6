"""Packed notes, the sample bank and the renderer, on a synthetic bank of decaying sines."""

import hashlib

import mido
import numpy as np
import pytest

from audiolm.data.bank import Bank, StoredBank, shift_pitch
from audiolm.data.corpus import Corpus, CorpusWriter, to_pcm
from audiolm.data.midi import read_midi
from audiolm.data.piano import Performance, pack, piece_split, sounding_end_s, unpack
from audiolm.data.render import (
    LEAD_S,
    MAX_SILENCE_S,
    MILD,
    Chain,
    NoteTable,
    Window,
    convolve,
    read_notes,
    record,
    render_notes,
    render_split,
    schedule,
    window_notes,
)
from audiolm.errors import DataError

RATE_HZ = 16_000


def _hz(pitch: float) -> float:
    return 440.0 * 2.0 ** ((pitch - 69) / 12)


def _sine(pitch: int, gain: float) -> np.ndarray:
    time = np.arange(RATE_HZ) / RATE_HZ
    return gain * np.sin(2 * np.pi * _hz(pitch) * time) * np.exp(-3 * time)


@pytest.fixture(scope="module")
def bank():
    roots, gains = np.arange(21, 109, 3), (0.1, 0.4)
    notes = [to_pcm(_sine(root, gain)) for root in roots for gain in gains]
    starts = np.cumsum([0] + [len(note) for note in notes])
    return Bank(StoredBank(np.concatenate(notes), starts, roots, np.array([40.0, 100.0], dtype=np.float32)))


def _performance(piece: str, num_notes: int = 240, seed: int = 0, split: str | None = None) -> Performance:
    rng = np.random.default_rng(seed)
    onset_s = np.sort(rng.uniform(0.0, num_notes / 2, num_notes)).astype(np.float32)
    return Performance(
        f"{piece}-{seed}",
        piece,
        "made up",
        "none",
        split or piece_split(piece),
        onset_s,
        onset_s + np.float32(0.4),
        rng.integers(40, 90, num_notes).astype(np.uint8),
        rng.integers(20, 110, num_notes).astype(np.uint8),
        np.array([1.0, 5.0], dtype=np.float32),
        np.array([2.5, 6.0], dtype=np.float32),
    )


def _table(*notes: tuple[float, float, int, int]) -> NoteTable:
    return NoteTable(*(np.array(column) for column in zip(*notes, strict=True)))


def _level(samples: np.ndarray, start_s: float, end_s: float) -> float:
    return float(np.sqrt(np.mean(samples[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)] ** 2)))


def test_pieces_are_split_by_the_hash_of_their_name():
    names = [f"Composer/Piece {index}" for index in range(2000)]
    splits = {name: piece_split(name) for name in names}
    for name in names:
        assert (splits[name] == "test") == (hashlib.sha1(name.encode()).hexdigest()[-1] in "01")
    shares = [np.mean([split == wanted for split in splits.values()]) for wanted in ("train", "valid", "test")]
    assert shares == pytest.approx([0.83, 0.044, 0.125], abs=0.03)


def test_packed_notes_come_back(tmp_path):
    performances = [_performance("A/x", 5), _performance("B/y", 7, seed=3)]
    pack(tmp_path / "notes.npz", performances)
    for before, after in zip(performances, unpack(tmp_path / "notes.npz"), strict=True):
        assert (before.id, before.group, before.split) == (after.id, after.group, after.split)
        for name in ("onset_s", "release_s", "pedal_down_s", "pedal_up_s"):
            assert np.allclose(getattr(before, name), getattr(after, name), atol=6e-4)
        assert np.array_equal(before.pitch, after.pitch)
        assert np.array_equal(before.velocity, after.velocity)
        assert after.pitch.dtype == np.uint8


def test_a_foreign_file_is_no_note_file(tmp_path):
    (tmp_path / "notes.npz").write_text("no")
    with pytest.raises(DataError, match="packed notes"):
        unpack(tmp_path / "notes.npz")
    with pytest.raises(DataError, match="sample bank"):
        StoredBank.read(tmp_path / "notes.npz")


def test_midi_times_follow_tempo_changes_and_pedal(tmp_path):
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=500_000, time=0))
    track.append(mido.Message("note_on", note=60, velocity=70, time=480))  # 0.5 s
    track.append(mido.Message("control_change", control=64, value=100, time=0))
    track.append(mido.MetaMessage("set_tempo", tempo=1_000_000, time=0))
    track.append(mido.Message("note_on", note=60, velocity=0, time=480))  # 1.5 s
    track.append(mido.Message("control_change", control=64, value=10, time=480))  # 2.5 s
    midi = mido.MidiFile(ticks_per_beat=480)
    midi.tracks.append(track)
    midi.save(tmp_path / "a.mid")
    notes = read_midi(tmp_path / "a.mid")
    assert (notes["onset_s"].tolist(), notes["release_s"].tolist()) == ([0.5], [1.5])
    assert (notes["pedal_down_s"].tolist(), notes["pedal_up_s"].tolist()) == ([0.5], [2.5])


def test_the_pedal_holds_notes_released_while_it_is_down():
    notes = _performance("A/x", 3)
    held = Performance(**{**vars(notes), "release_s": np.array([0.5, 1.2, 2.6], dtype=np.float32)})
    assert sounding_end_s(held).tolist() == pytest.approx([0.5, 2.5, 2.6])


def test_pitch_shift_moves_the_frequency_and_keeps_the_level():
    shifted = shift_pitch(_sine(60, 0.5), 1)
    spectrum = np.abs(np.fft.rfft(shifted * np.hanning(len(shifted))))
    assert np.argmax(spectrum) * RATE_HZ / len(shifted) == pytest.approx(_hz(61), abs=1.0)
    assert np.abs(shifted).max() == pytest.approx(0.5, rel=0.05)


def test_louder_velocities_sound_louder(bank):
    levels = [gain * np.abs(sample).max() for sample, gain in (bank.note(60, velocity) for velocity in range(1, 128))]
    assert (np.diff(levels) > -1e-6).all()
    assert levels[-1] > 5 * levels[0]


def test_onsets_are_where_the_notes_say(bank):
    dry = render_notes(_table((0.25, 0.6, 60, 80), (1.0, 1.3, 64, 80)), bank)
    assert np.abs(dry[: round(0.25 * RATE_HZ)]).max() == 0.0
    assert _level(dry, 0.252, 0.27) > 0.01
    assert _level(dry, 0.9, 0.999) < 0.01 * _level(dry, 1.002, 1.02)


def test_dampers_stop_released_notes_and_not_the_highest_strings(bank):
    short, held = (render_notes(_table((0.1, end_s, 60, 80)), bank) for end_s in (0.3, 1.0))
    assert _level(short, 0.7, 0.9) < 0.05 * _level(held, 0.7, 0.9)
    high = render_notes(_table((0.1, 0.3, 100, 80)), bank)
    assert _level(high, 0.7, 0.9) > 0.5 * _level(held, 0.7, 0.9)


def test_long_silences_are_shortened_and_the_transposition_stays_on_the_keyboard():
    onset_s, none = np.array([5.0, 5.5, 20.0], dtype=np.float32), np.zeros(0, dtype=np.float32)
    pitch, velocity = np.array([22, 60, 107], dtype=np.uint8), np.full(3, 60, dtype=np.uint8)
    late = Performance("a", "A/x", "made up", "none", "train", onset_s, onset_s + 0.5, pitch, velocity, none, none)
    low, high = (window_notes(Window(late, 0.0, 30.0), Chain(semitones=semitones)) for semitones in (-5, 5))
    assert low.onset_s.tolist() == pytest.approx([LEAD_S, LEAD_S + 0.5, LEAD_S + 1.0 + MAX_SILENCE_S])
    assert high.end_s.tolist() == pytest.approx((high.onset_s + 0.5).tolist())
    assert low.pitch.tolist() == [29, 55, 102]
    assert high.pitch.tolist() == [27, 65, 100]


def test_blockwise_convolution_equals_direct_convolution():
    rng = np.random.default_rng(0)
    samples, response = rng.standard_normal(50_000).astype(np.float32), rng.standard_normal(301).astype(np.float32)
    expected = np.convolve(samples, response)[7 : 7 + len(samples)]
    assert np.allclose(convolve(samples, response, 7), expected, atol=1e-3)


def test_the_room_does_not_move_the_onset(bank):
    dry = render_notes(_table((0.5, 1.5, 60, 100)), bank)
    wet = record(dry, Chain(room_db=-20.0, tilt_db=1.0), np.random.default_rng(0))
    assert len(wet) == len(dry)
    assert _level(wet, 0.0, 0.49) < 0.001
    assert _level(wet, 0.502, 0.52) > 0.02
    assert np.abs(wet).max() < 1.0


def test_rendering_is_deterministic_and_seeded(bank, tmp_path):
    performances = [_performance("A/x", split="train"), _performance("B/y", seed=1, split="train")]
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with CorpusWriter(tmp_path / name) as writer:
            render_split(writer, performances, bank, split="train", hours=0.03, seed=seed)
        corpus = Corpus(tmp_path / name)
        assert all(item.group in ("A/x", "B/y") and item.split == "train" for item in corpus.items)
        assert sum(item.duration_s for item in corpus.items) >= 0.03 * 3600
        contents.append(corpus.pcm.tobytes())
        notes = read_notes(tmp_path / name)
        assert list(notes) == [item.id for item in corpus.items]
        assert corpus.items[0].source == "made up+salamander"
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_every_piece_comes_up_before_any_comes_up_twice():
    performances = [_performance("A/x", 2000), _performance("B/y", 240, seed=1), _performance("C/z", 240, seed=2)]
    windows = schedule(performances, np.random.default_rng(0))
    assert {next(windows).performance.group for _ in range(3)} == {"A/x", "B/y", "C/z"}


def test_held_out_excerpts_are_not_transposed_nor_retimed():
    chain = MILD.draw(np.random.default_rng(0))
    assert (chain.tempo, chain.semitones) == (1.0, 0)


def test_a_split_without_pieces_is_refused(bank, tmp_path):
    with CorpusWriter(tmp_path) as writer, pytest.raises(DataError, match="'test'"):
        render_split(writer, [_performance("A/x", split="train")], bank, split="test", hours=0.1, seed=0)
