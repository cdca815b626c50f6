"""python -m audiolm.benchmark SUITE [--runs 5] [--threads 1] [--json FILE] …"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from audiolm.benchmark.stages import processor_name
from audiolm.errors import AudioLMError
from audiolm.receipt import versions

SUITES = {
    "stages": "a run of the pipeline taken apart, with real-time factors",
    "decode": "a decoding step against the memory floor, slower twins and other software",
    "scaling": "the cost of a second of sound against the length",
    "codec": "encoding and decoding, whole and as a stream",
    "detector": "a verdict, its parts, and its matrix products alone",
    "visitors": "many visitors of a real server at once against one after the other",
    "first-sound": "from the click to the first sound in a real browser, and what is heard at the borders of chunks",
}


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="audiolm.benchmark", description="How fast the system is.")
    suites = parser.add_subparsers(dest="suite", required=True, metavar="SUITE")
    for name, text in SUITES.items():
        suite = suites.add_parser(name, help=text)
        suite.add_argument("--runs", type=_positive, default=5, help="rounds in which all take turns; medians are told")
        suite.add_argument("--threads", type=_positive, default=1, help="CPU threads")
        suite.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
        if arguments[:1] == [name]:
            suite.set_defaults(module=importlib.import_module(f"audiolm.benchmark.{name.replace('-', '_')}"))
            suite.get_default("module").add_arguments(suite)
    options = parser.parse_args(arguments)
    try:
        torch.set_num_threads(options.threads)
        result = conditions(options) | options.module.run(options)
    except AudioLMError as error:
        print(f"audiolm.benchmark: {error}", file=sys.stderr)
        return 2
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(
        f"{options.suite}: {result['processor']}, {options.threads} thread(s), medians of {options.runs} runs in turns"
    )
    print(f"{result['date_utc']} UTC, load {result['load']:.1f}\n\n{options.module.table(result)}")
    return 0


def conditions(options: argparse.Namespace) -> dict[str, object]:
    """What figures depend on; `load` tells whether the machine had other work."""
    return {
        "suite": options.suite,
        "runs": options.runs,
        "threads": options.threads,
        "thread_policy": {name: os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
        "date_utc": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "load": os.getloadavg()[0],
        "processor": processor_name(),
        "versions": versions(),
    }


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
