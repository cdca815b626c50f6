"""The commands of the README and of the model cards are commands of the program."""

from __future__ import annotations

import argparse
import importlib
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ("python -m audiolm", "python -m app.study")


def commands_of(path: Path) -> list[list[str]]:
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith(PROGRAMS)]


README, CARDS = (
    commands_of(ROOT / "README.md"),
    [commands_of(card) for card in ROOT.glob("assets/checkpoints/*/README.md")],
)
COMMANDS = [*README, *(command for card in CARDS for command in card)]


class Understood(BaseException):
    """Raised instead of running a command."""


def test_the_readme_has_commands_of_every_part_and_each_card_those_that_made_it():
    parts = {"audiolm", "audiolm.data", "audiolm.training", "audiolm.evaluation", "app.study"}
    assert parts <= {module for module, *_ in README}
    assert len(CARDS) == 2
    for card in CARDS:
        assert {"audiolm.data", "audiolm.training", "audiolm.evaluation"} <= {module for module, *_ in card}


@pytest.mark.parametrize(("module", "arguments"), [(command[0], command[1:]) for command in COMMANDS])
def test_the_program_understands_every_command(module, arguments, monkeypatch):
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
