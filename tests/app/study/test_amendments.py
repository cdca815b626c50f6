"""What a researcher may decide otherwise than the preset, before a study is kept."""

from __future__ import annotations

import json

import pytest

from app.study.amendments import amended, read_amendments
from app.study.commands import main
from app.study.library import Library
from audiolm.errors import AudioLMError
from tests.app.conftest import write_tone
from tests.app.study.studies import make_study

WANTED = {
    "texts": {"consent": "Do you agree?", "labels": ["Real", "Made"]},
    "codes": {"complete": "C1ABCDEF", "no_consent": "NO", "redirect": "https://platform.example/?cc={code}"},
    "checks": {"max_failed": 1},
    "plan": {"equivalence_margin": 0.1},
}


def test_what_is_named_changes_and_nothing_else():
    study, _ = make_study()
    changed = amended(study, read_amendments(json.dumps(WANTED)))
    before, after = (json.loads(one.to_json()) for one in (study, changed))
    for part, fields in WANTED.items():
        assert after.pop(part) == {**before.pop(part), **fields}
    assert after == before


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "[]",
        '{"clips": []}',
        '{"texts": {"heading": "?"}}',
        '{"texts": []}',
        '{"codes": {"complete": "a b"}}',
        '{"codes": {"redirect": "http://platform.example/{code}"}}',
        '{"plan": {"target_sessions": 0}}',
    ],
)
def test_what_no_study_has_is_refused_before_anything_is_made(content, tmp_path, capsys):
    with pytest.raises(AudioLMError):
        read_amendments(content)
    (tmp_path / "amend.json").write_text(content)
    given = ["new", "abx", "missing.wav", "missing.wav", "--amend", str(tmp_path / "amend.json")]
    assert main(["--studies", str(tmp_path / "studies"), *given]) == 2
    assert "missing.wav" not in capsys.readouterr().err


def test_a_study_of_ones_own_codes_and_words_is_made_on_the_command_line(checkpoints, tmp_path, capsys):
    recordings = [str(write_tone(tmp_path / f"{number}.wav", seconds=3.0)) for number in range(2)]
    (tmp_path / "amend.json").write_text(json.dumps(WANTED | {"texts": {"contact": "a@example.org"}}))
    options = {"checkpoint": checkpoints / "tiny-speech", "amend": tmp_path / "amend.json"}
    options |= {"clip-seconds": 2.4, "prompt-seconds": 1}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    assert main(["--studies", str(tmp_path / "studies"), "new", "audiolm", *recordings, *given]) == 0
    library = Library(tmp_path / "studies")
    study = library.store.study(library.store.studies()[0])
    assert (study.texts.contact, study.codes.complete) == ("a@example.org", "C1ABCDEF")
    assert study.codes.address(study.codes.no_consent) == "https://platform.example/?cc=NO"
    assert len(study.codes.screened_out) == 8  # one at random, as for whatever was not named
    assert f"/study/{study.id}/results#{library.owner_token(study.id)}" in capsys.readouterr().out
    library.store.close()
