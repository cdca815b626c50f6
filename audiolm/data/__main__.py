"""`python -m audiolm.data COMMAND`: prepares corpora. Each command imports only what it needs."""

from __future__ import annotations

import argparse
import importlib
import sys

from audiolm.errors import AudioLMError

_COMMANDS = {
    "speech": ("audiolm.data.speech", "speech recordings -> corpus folder"),
    "phones": ("audiolm.data.phones", "transcripts of a corpus -> which phone is heard when"),
    "piano-notes": ("audiolm.data.midi", "MIDI performances -> packed notes"),
    "piano-bank": ("audiolm.data.piano_bank", "piano samples, or a SoundFont -> reduced 16 kHz sample bank"),
    "piano-render": ("audiolm.data.render", "packed notes + bank -> corpus folder of rendered excerpts"),
    "recordings": ("audiolm.data.recordings", "any recordings -> corpus folder that is all test"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    overview = argparse.ArgumentParser(
        prog="python -m audiolm.data",
        description=__doc__,
        epilog="\n".join(f"  {name:14}{text}" for name, (_, text) in _COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("command", choices=_COMMANDS, help="see below; COMMAND --help shows its options")
    command = overview.parse_args(arguments[:1]).command
    module = importlib.import_module(_COMMANDS[command][0])
    parser = argparse.ArgumentParser(prog=f"python -m audiolm.data {command}", description=_COMMANDS[command][1])
    module.add_arguments(parser)
    try:
        module.run(parser.parse_args(arguments[1:]))
    except AudioLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
