"""A bank out of a SoundFont, with a stand-in for the program fluidsynth that plays decaying sines."""

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from audiolm.data import soundfont
from audiolm.data.__main__ import main
from audiolm.data.bank import Bank, StoredBank
from audiolm.errors import DataError

PLAYER = """#!{python}
import sys
import mido
import numpy as np
import soundfile
rate_hz, out = int(sys.argv[sys.argv.index("-r") + 1]), sys.argv[sys.argv.index("-F") + 1]
assert sys.argv[-2].startswith("/")  # a name such as -x.sf2 would be an option
sound, now_s = np.zeros(0), 0.0
for message in mido.MidiFile(sys.argv[-1]):
    now_s += message.time
    if message.type == "note_on":
        key, level, start_s = message.note, {level}, now_s
    elif message.type == "note_off":
        time = np.arange(round((now_s - start_s) * rate_hz)) / rate_hz
        tone = level * np.sin(2 * np.pi * 440 * 2 ** ((key - 69) / 12) * time) * np.exp(-time / 0.1)
        sound = np.concatenate([sound, np.zeros(round(start_s * rate_hz) - len(sound) + 1000), tone])
soundfile.write(out, np.stack([sound, sound], axis=1), rate_hz, subtype="FLOAT")
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Makes a bank with a player that gives notes this level, an expression of the MIDI message."""

    def make(level: str) -> int:
        program = tmp_path / "bin" / "fluidsynth"
        program.parent.mkdir(exist_ok=True)
        program.write_text(PLAYER.format(python=sys.executable, level=level))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(program.parent))
        (tmp_path / "piano.sf2").touch()
        monkeypatch.setattr("audiolm.data.soundfont._ROOT_STEP", 40)  # three keys
        options = ["--soundfont", str(tmp_path / "piano.sf2"), "--out", str(tmp_path / "bank.npz"), "--max-s", "1"]
        return main(["piano-bank", *options, "--licence", "a licence", "--layers", "8", "16", "1"])

    return make


def test_a_bank_of_a_sound_font_answers_to_velocity_as_the_font_does(play, tmp_path):
    assert play("0.2 * (message.velocity / 127) ** 2") == 0
    stored = StoredBank.read(tmp_path / "bank.npz")
    assert (stored.name, stored.licence) == ("piano", "a licence")
    assert stored.roots.tolist() == [21, 61, 101]
    assert stored.velocities.tolist() == [13, 60, 124]
    bank = Bank(stored)
    sounds = [gain * sample for sample, gain in (bank.note(61, velocity) for velocity in (13, 60, 124))]
    peaks = np.array([np.abs(sound).max() for sound in sounds])
    assert peaks / peaks[-1] == pytest.approx((np.array([13, 60, 124]) / 124) ** 2, rel=0.05)
    attack = np.flatnonzero(np.abs(sounds[-1]) > 0.1 * peaks[-1])[0]
    assert attack / 16_000 == pytest.approx(0.005, abs=0.001)
    assert len(sounds[-1]) < 16_000  # cut where it has decayed


@pytest.mark.parametrize(
    ("player", "message"),
    [
        ("0.0", "key 21 is silent at velocity 13"),
        ("1 / 0", "fluidsynth failed on"),
        (None, "need the program"),
    ],
)
def test_a_player_that_fails_is_named(player, message, play, tmp_path, monkeypatch, capsys):
    if player is None:
        monkeypatch.setattr("tests.data.test_soundfont.PLAYER", "#!/nowhere/to/be/found\n")
    assert play(str(player)) == 2
    assert message in capsys.readouterr().err


def test_a_sound_font_comes_with_its_licence(tmp_path, capsys):
    font, out = str(tmp_path / "piano.sf2"), str(tmp_path / "bank.npz")
    assert main(["piano-bank", "--soundfont", font, "--out", out]) == 2
    assert "needs --licence" in capsys.readouterr().err
    assert main(["piano-bank", "--soundfont", font, "--out", out, "--licence", "x"]) == 2
    assert "piano.sf2: no such file" in capsys.readouterr().err


def test_a_player_that_takes_too_long_is_stopped(play, monkeypatch, capsys):
    monkeypatch.setattr("audiolm.data.soundfont._TIMEOUT_S", 0.2)
    assert play("__import__('time').sleep(60)") == 2
    assert "took more than 0.2 s" in capsys.readouterr().err


def test_a_font_whose_name_looks_like_an_option_is_played(play, tmp_path, monkeypatch):
    (tmp_path / "-x.sf2").touch()
    monkeypatch.chdir(tmp_path)
    assert play("0.2") == 0  # makes the player
    assert len(soundfont.play(Path("-x.sf2"), 60, [64], 0.5)) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_bank_is_refused(damage, tmp_path):
    path = tmp_path / "bank.npz"
    pcm = np.random.default_rng(0).integers(-9999, 9999, size=9999).astype(np.int16)
    StoredBank(pcm, np.array([0, 9999]), np.array([60]), np.array([64.0])).write(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes(64) + whole[middle + 64 :]
    path.write_bytes({"cut": whole[:middle], "changed": changed, "empty": b""}[damage])
    with pytest.raises(DataError, match="not a sample bank"):
        StoredBank.read(path)


def test_a_bank_that_names_no_instrument_is_salamander_s(tmp_path):
    pcm, starts = np.ones(10, dtype=np.int16), np.array([0, 10])
    np.savez(tmp_path / "old.npz", pcm=pcm, starts=starts, roots=np.array([60]), velocities=np.array([64.0]))
    assert StoredBank.read(tmp_path / "old.npz").name == "salamander"
