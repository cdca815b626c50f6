"""A program beside this one: what it prints, and why it printed nothing."""

import pytest

from audiolm.data import espeak
from audiolm.errors import EvaluationError


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A function that puts a shell script in the place of espeak-ng."""

    def write(script):
        path = tmp_path / "espeak-ng"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(espeak.shutil, "which", lambda name: str(path))

    return write


def test_what_is_printed_is_read_even_where_it_is_no_text(program):
    program(r'printf "%s \377" "$2"')
    assert espeak.has_espeak()
    assert espeak.run_espeak("-v", "b c") == "b c \N{REPLACEMENT CHARACTER}"


def test_a_failure_says_what_was_asked_and_what_the_program_said(program):
    program("echo no such voice >&2; exit 3")
    with pytest.raises(EvaluationError, match=r"espeak-ng failed: .*'-v', 'klingon'.* 3.* no such voice$"):
        espeak.run_espeak("-v", "klingon")


def test_a_program_that_does_not_end_is_stopped(program, monkeypatch):
    monkeypatch.setattr(espeak, "_TIMEOUT_S", 0.2)
    program("exec sleep 30")
    with pytest.raises(EvaluationError, match="timed out"):
        espeak.run_espeak("-q")


def test_a_program_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(espeak.shutil, "which", lambda name: None)
    assert not espeak.has_espeak()
    with pytest.raises(EvaluationError, match="espeak-ng is not installed"):
        espeak.run_espeak("-q")
