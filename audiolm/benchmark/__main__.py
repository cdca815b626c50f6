"""python -m audiolm.benchmark [--checkpoint NAME] [--seconds 7] [--threads 2] [--json]

python -m audiolm.benchmark visitors [--visitors 8] [--seconds 5] [--rounds 3]
python -m audiolm.benchmark first-sound [--seconds 7] [--rounds 3]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from audiolm.audio import files
from audiolm.benchmark.first_sound import measure_first_sound
from audiolm.benchmark.stages import measure, table
from audiolm.benchmark.visitors import measure_visitors
from audiolm.errors import AudioLMError
from audiolm.pipeline import Pipeline
from audiolm.request import ContinuationRequest

SERVED = ("visitors", "first-sound")


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in SERVED:
        return _served(arguments[0], arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        if options.threads:
            torch.set_num_threads(options.threads)
        request = ContinuationRequest(options.prompt_seconds, options.seconds, num_continuations=options.count)
        prompt = None if options.prompt is None else files.read_waveform(options.prompt, max_s=request.prompt_s)
        pipeline = Pipeline.load(options.checkpoint, options.revision, options.device, options.watermark)
        request = dataclasses.replace(request, **pipeline.models.info.sampling)
        speed = measure(pipeline, request, prompt, options.repeats)
    except AudioLMError as error:
        print(f"audiolm.benchmark: {error}", file=sys.stderr)
        return 2
    print(json.dumps(speed.to_dict(), indent=1) if options.json else table(speed))
    return 0


def _served(name: str, arguments: list[str]) -> int:
    """A benchmark of the application as visitors meet it; JSON."""
    parser = argparse.ArgumentParser(prog=f"audiolm.benchmark {name}", description="Starts the application itself.")
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--seconds", type=float, default=7.0, help="length of a continuation")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--device", default="auto")
    if name == "visitors":
        parser.add_argument("--visitors", type=int, default=8)
    options = parser.parse_args(arguments)
    server = ("--device", options.device)
    try:
        if name == "visitors":
            measured = measure_visitors(options.checkpoint, options.visitors, options.seconds, options.rounds, server)
        else:
            measured = measure_first_sound(options.checkpoint, options.seconds, options.rounds, server)
    except AudioLMError as error:
        print(f"audiolm.benchmark: {error}", file=sys.stderr)
        return 2
    print(json.dumps(measured.to_dict(), indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="audiolm.benchmark", description="Speed, stage by stage.")
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--prompt", type=Path, help="a recording (a synthetic one)")
    parser.add_argument("--prompt-seconds", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=7.0, help="of continuation")
    parser.add_argument("--count", type=int, default=1, help="continuations at once")
    parser.add_argument("--repeats", type=_positive, default=1, help="the median run is reported")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=_positive, help="CPU threads")
    parser.add_argument(
        "--no-watermark", dest="watermark", action="store_false", help="where resemble-perth is missing"
    )
    parser.add_argument("--json", action="store_true")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
