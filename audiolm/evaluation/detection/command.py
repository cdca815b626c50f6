"""`python -m audiolm.evaluation detector`: what a checkpoint's detector is worth, on its hold-out (split "test")."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

import torch

from audiolm.data.corpus import Corpus
from audiolm.errors import AudioLMError, EvaluationError
from audiolm.evaluation.detection import rows
from audiolm.evaluation.detection.inputs import DetectionInputs
from audiolm.evaluation.detection.pictures import write_pictures
from audiolm.evaluation.report import Report
from audiolm.evaluation.subject import from_checkpoint


def main(arguments: list[str]) -> int:
    """Returns 0 whether or not targets are met, 2 where nothing could be measured."""
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        _run(args, "python -m audiolm.evaluation detector " + shlex.join(arguments))
    except AudioLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(args: argparse.Namespace, command: str) -> None:
    """Prints each row as soon as it is measured, and writes the files after each: a long run that ends early leaves
    what it has."""
    wanted = list(rows.ROWS) if args.rows is None else args.rows.split(",")
    if unknown := [row for row in wanted if row not in rows.ROWS]:
        raise EvaluationError(f"rows are {', '.join(rows.ROWS)}, found {', '.join(unknown)}")
    items, inputs = _items(args.items), _inputs(args)
    inputs.pair_set()
    subject = inputs.subject
    data = ", ".join([args.pairs.name, *(corpus.folder.name for corpus in (*inputs.real, *inputs.other))])
    report = Report(inputs.domain, subject.name, subject.sha256, subject.components, data, command)
    print(report.header())
    for row in wanted:
        of_row = dataclasses.replace(inputs, num_items=items.get(row, items.get("")))
        for measured in rows.measure(row, of_row, report.rows):
            print(f"\n{measured.text()}", flush=True)
            report = dataclasses.replace(report, rows=(*report.rows, measured))
        _write(args, report, [])
    if args.pictures is not None:
        pictures = write_pictures(inputs, args.pictures)
        print("\n" + "\n".join(f"{args.pictures / one['file']}  {one['caption']}" for one in pictures))
        _write(args, report, pictures)


def _write(args: argparse.Namespace, report: Report, pictures: list[dict[str, str]]) -> None:
    if args.json is not None:
        args.json.write_text(report.to_json(), encoding="utf-8")
    if args.markdown is not None:
        args.markdown.write_text(report.markdown(), encoding="utf-8")
    if args.facts is not None:
        facts = {"figures": report.card_figures(), "pictures": pictures}
        args.facts.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _items(text: str) -> dict[str, int]:
    """ "50" or "D2=500,D5=60" -> the most items by row, "" for all others.

    Raises EvaluationError for an unknown row, or what is no count of at least 1.
    """
    parts = [part.rpartition("=") for part in text.split(",") if part]
    try:
        items = {row: int(count) for row, _, count in parts}
    except ValueError as error:
        raise EvaluationError(f"--items is a number, or row=number,row=number; found {text!r}") from error
    if unknown := [row for row in items if row and row not in rows.ROWS]:
        raise EvaluationError(f"--items: rows are {', '.join(rows.ROWS)}, found {', '.join(unknown)}")
    if (least := min(items.values(), default=1)) < 1:
        raise EvaluationError(f"--items: a row needs at least 1, found {least}")
    return items


def _inputs(args: argparse.Namespace) -> DetectionInputs:
    return DetectionInputs(
        from_checkpoint(args.checkpoint, args.device),
        args.pairs,
        tuple(Corpus(folder) for folder in args.data),
        tuple(Corpus(folder) for folder in args.other),
        None,
        args.work,
        args.seed,
        sys.stderr.isatty(),
    )


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name}  {row.title}" for name, row in rows.ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m audiolm.evaluation detector",
        description=__doc__,
        epilog=f"rows:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", required=True, help="embedded name, folder or Hub id")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of generated clips and their originals")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="corpora of the checkpoint's domain: D2, F")
    parser.add_argument("--other", type=Path, nargs="+", default=[], help="corpora it was not made for: D7")
    parser.add_argument("--work", type=Path, help="folder that keeps the continuations of F")
    parser.add_argument("--rows", help="such as D1,D2 (default: all)")
    parser.add_argument(
        "--items", default="", help="pairs, crops or clips a row at most: 50, or D2=500,D5=60 (default: each row's own)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the places where clips are cut, and of F")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--markdown", type=Path, help="file to write, for the model card")
    parser.add_argument("--facts", type=Path, help="file to write: figures and pictures as facts of the model card")
    parser.add_argument("--pictures", type=Path, help="folder for DET curves, calibration, score by length")
    parser.add_argument("--device", default="cpu", help="such as cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser
