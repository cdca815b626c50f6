"""The commands of the README are commands of the program."""

from __future__ import annotations

import argparse
import importlib
import shlex
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
LINES = README.replace("\\\n", " ").splitlines()
PROGRAMS = ("python -m audiolm", "python -m app.study")
COMMANDS = [shlex.split(line, comments=True)[2:] for line in LINES if line.startswith(PROGRAMS)]


class Understood(BaseException):
    """Raised instead of running a command."""


def test_the_readme_has_commands_of_every_part():
    parts = {"audiolm", "audiolm.data", "audiolm.training", "audiolm.evaluation", "app.study"}
    assert parts <= {module for module, *_ in COMMANDS}


@pytest.mark.parametrize(("module", "arguments"), [(command[0], command[1:]) for command in COMMANDS])
def test_the_program_understands_every_command_of_the_readme(module, arguments, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser, given=None, namespace=None):
        parsed = parse(parser, given, namespace)
        if set(vars(parsed)) == {"command"}:  # audiolm.data asks for the command's name first
            return parsed
        raise Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    home = importlib.import_module("audiolm.cli" if module == "audiolm" else module)
    main = home.main if hasattr(home, "main") else importlib.import_module(f"{module}.__main__").main
    with pytest.raises(Understood):
        main(arguments)
