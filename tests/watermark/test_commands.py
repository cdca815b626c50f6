from __future__ import annotations

import json

import pytest
import torch

from audiolm.audio import files
from audiolm.cli import main
from audiolm.errors import EvaluationError
from audiolm.streams import Waveform
from audiolm.watermark import mark
from audiolm.watermark.survival import Survival, measure, table
from tests.watermark.material import voice


@pytest.fixture
def clips(tmp_path):
    """A file with a mark, one without and one that is too short."""
    clip = voice(4.0)
    for name, waveform in {"marked": mark(clip), "plain": clip, "short": clip.seconds(0, 0.7)}.items():
        files.write_wav(tmp_path / f"{name}.wav", waveform)
    return tmp_path


def test_check_says_of_every_file_what_was_found(clips, capsys):
    assert main(["watermark", "check", *(str(clips / f"{name}.wav") for name in ("marked", "plain", "short"))]) == 1
    marked, plain, short = capsys.readouterr().out.splitlines()
    assert "marked.wav  watermark: found, 0.8" in marked
    assert "plain.wav  watermark: not found, 0." in plain
    assert "short.wav  watermark: not looked for (too short: 0.70 s, at least 2 s are needed)" in short


def test_check_gives_exit_code_0_where_every_file_has_one_and_json(clips, capsys):
    assert main(["watermark", "check", str(clips / "marked.wav"), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result.pop("confidence") > 0.8
    assert result == {"file": str(clips / "marked.wav"), "found": True, "reason": "", "threshold": 0.8}


def test_a_mark_that_is_destroyed_is_counted_as_lost_and_a_missing_encoder_is_said():
    def missing(samples):
        raise EvaluationError("needs a package")

    changes = {"none": lambda samples: samples, "silence": torch.zeros_like, "missing": missing}
    none, silence, absent, *crops = measure([voice(3.0), voice(3.0, seed=1)], changes)
    assert none == Survival("none", 2, found=2, false_alarms=0)
    assert silence == Survival("silence", 2, found=0, false_alarms=0)
    assert absent == Survival("missing", note="needs a package")
    assert [row.change for row in crops] == ["crop to 4 s", "crop to 3 s", "crop to 2 s"]


def test_clips_that_have_a_mark_already_are_false_alarms():
    first, *_ = measure([mark(voice(3.0))], {"none": lambda samples: samples})
    assert first.false_alarms == 1


def test_the_table_gives_shares_with_intervals():
    rows = table([Survival("mp3 64k", 20, found=20, false_alarms=1), Survival("aac 64k", note="needs av")]).splitlines()
    assert rows[2] == "| mp3 64k | 20 | 100 % (84 to 100) | 5 % (1 to 24) |"
    assert rows[3] == "| aac 64k |  | needs av |  |"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seconds", "2"], "--seconds must be at least 4, found 2"),
        (["--seconds", "9"], "no recording of 9 s or more"),
    ],
)
def test_survive_refuses_clips_too_short_to_be_cropped(clips, options, said, capsys):
    assert main(["watermark", "survive", str(clips / "plain.wav"), *options]) == 2
    assert said in capsys.readouterr().err


def test_survive_cuts_recordings_into_clips_and_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("audiolm.evaluation.degradations.DEGRADATIONS", {"none": lambda samples: samples})
    files.write_wav(tmp_path / "long.wav", Waveform(voice(9.0).samples))
    assert main(["watermark", "survive", str(tmp_path / "long.wav"), "--seconds", "4"]) == 0
    assert "| none | 2 | 100 % (34 to 100) | 0 % (0 to 66) |" in capsys.readouterr().out
