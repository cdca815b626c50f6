"""`python -m audiolm watermark check | survive`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from audiolm.errors import RequestError
from audiolm.streams import Waveform
from audiolm.watermark.marking import MarkResult, check
from audiolm.watermark.survival import CROPS_S, measure, table


def add_arguments(parser: argparse.ArgumentParser, examples: Path) -> None:
    """`examples` is the folder whose recordings `survive` takes where it is given none."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("check", help="look for the watermark; exit code 1 where a file has none")
    action.add_argument("files", type=Path, nargs="+", metavar="FILE", help="WAV, FLAC, OGG or MP3")
    action.add_argument("--json", action="store_true")

    action = actions.add_parser("survive", help="mark recordings, change them, and look for the mark: a table")
    action.add_argument("files", type=Path, nargs="*", metavar="FILE", help="without a mark (the example prompts)")
    action.add_argument("--seconds", type=float, default=5.0, help="length of the clips that they are cut into (5)")
    action.set_defaults(examples=examples)


def run(args: argparse.Namespace, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> int:
    """Runs the chosen action; returns the exit code. `changes` is what `survive` does to the sound, by name.

    Raises AudioError, RequestError, WatermarkError.
    """
    return _check(args) if args.action == "check" else _survive(args, changes)


def _check(args: argparse.Namespace) -> int:
    results = {str(path): check(_read(path)) for path in args.files}
    if args.json:
        print(json.dumps([{"file": name, **dataclasses.asdict(result)} for name, result in results.items()]))
    else:
        for name, result in results.items():
            print(f"{name}  {_sentence(result)}")
    return 0 if all(result.found for result in results.values()) else 1


def _sentence(result: MarkResult) -> str:
    if result.reason:
        return f"watermark: not looked for ({result.reason})"
    said = "found" if result.found else "not found"
    return f"watermark: {said}, {result.confidence:.2f} against a threshold of {result.threshold:.2f}"


def _survive(args: argparse.Namespace, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> int:
    if not args.seconds >= max(CROPS_S):  # also refuses NaN
        raise RequestError(f"--seconds must be at least {max(CROPS_S):g}, found {args.seconds:g}")
    paths = args.files or sorted(args.examples.glob("*.flac"))
    clips = [clip for path in paths for clip in _cut(_read(path), args.seconds)]
    if not clips:
        raise RequestError(f"no recording of {args.seconds:g} s or more among {len(paths)} files")
    rows = tqdm(measure(clips, changes), total=len(changes) + len(CROPS_S), disable=None, leave=False)
    print(table(list(rows)))
    return 0


def _read(path: Path) -> Waveform:
    from audiolm.audio.files import read_waveform  # soundfile, which training machines lack

    return read_waveform(path)


def _cut(waveform: Waveform, seconds: float) -> Sequence[Waveform]:
    """Whole clips, end to end; the rest is left out."""
    return [waveform.seconds(n * seconds, (n + 1) * seconds) for n in range(int(waveform.duration_s / seconds))]
