"""`python -m audiolm.training detector-rebuild`: a checkpoint's detector anew, from pairs to the model card.

To be run whenever codec or stages have changed: pairs (detector-data), views (detector-views), training and calibration
(detector), a checkpoint with the new detector, and its figures (`python -m audiolm.evaluation detector`) in the card's
section "Detector". Pairs and views go on where an earlier run of the command stopped, what is trained stays, and a
training that was interrupted begins again. Where acceptance row D13 is missed (the answers it gives are wrong too
often), or what it rests on was not measured, the new detector keeps its scores to itself and says so.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiolm.checkpoints.assemble import assemble
from audiolm.checkpoints.card import shown_pictures
from audiolm.checkpoints.format import CheckpointInfo, load_run, read_info
from audiolm.checkpoints.listener import LISTENER_VERSION
from audiolm.checkpoints.pictures import picture_names, read_picture
from audiolm.detector.calibration import BAND_ERROR
from audiolm.errors import TrainingError
from audiolm.training import detector_data, detector_views
from audiolm.training.detector import require_listener
from audiolm.training.runs import read_state, write_run

SHARES = {"pairs": 0.5, "views": 0.25, "training": 0.25}  # of the minutes; measuring comes on top
UNJUDGED_ROWS = ("D11", "D13", "F")  # they say nothing of the score's worth
NEEDED_ROWS = ("D1", "D2", "D7")  # missed where they were not judged, as without --data
SECTION, PICTURES = "Detector", "pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder; a detector in it is replaced")
    parser.add_argument("--tokens", type=Path, nargs="+", required=True, help="token caches of its tokenizers")
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[], help="the caches' corpora; without them scores are withheld"
    )
    parser.add_argument("--other", type=Path, nargs="+", default=[], help="corpora of another domain, to be refused")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps pairs, views and the run")
    detector_data.add_amounts(parser)
    parser.add_argument("--max-minutes", type=float, default=80.0, help="of pairs, training views and training")
    parser.add_argument("--steps", type=int, default=1_000_000, help="of training, at most")
    parser.add_argument("--init", type=Path, help="earlier detector's run to start from; a run that is there stays")
    parser.add_argument(
        "--band-error", type=float, default=BAND_ERROR, help="of the training; a run that is there keeps its own"
    )
    parser.add_argument("--items", default="", help="clips a row of the evaluation at most: 50, or D2=500,D5=60")
    parser.add_argument("--keep-scores", action="store_true", help="show scores even where a target is missed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")


def run(args: argparse.Namespace) -> None:
    """Raises CheckpointError, DataError for unusable folders; TrainingError where a step fails."""
    pairs, trained = args.work / "pairs", args.work / "detector"
    if args.init is not None:
        require_listener(args.init, LISTENER_VERSION)  # or an hour would pass before training refuses it
    minutes = {step: share * args.max_minutes for step, share in SHARES.items()}
    common = Namespace(checkpoint=args.checkpoint, seed=args.seed, threads=args.threads, device=args.device)
    detector_data.run(
        _with_defaults(
            detector_data, common, tokens=args.tokens, data=args.data, out=pairs, count=args.count,
            valid_count=args.valid_count, test_count=args.test_count, unpaired=args.unpaired,
            seconds=args.seconds, max_minutes=minutes["pairs"],
        )
    )  # fmt: skip
    detector_views.run(_with_defaults(detector_views, common, data=pairs, max_minutes=minutes["views"]))
    if not _is_measured(trained):
        validate = max(0.2, minutes["training"] / 12)
        options = ["--steps", args.steps, "--max-minutes", minutes["training"], "--validate-minutes", validate]
        options += ["--keep-best", "--average-decay", 0.99, "--band-error", args.band_error, "--seed", args.seed]
        options += ["--threads", args.threads, "--device", args.device]
        options += [] if args.init is None else ["--init", args.init]
        _call("audiolm.training", "detector", "--data", pairs, "--out", trained, *options)
    withhold(trained, [])  # what an earlier run withheld is measured again,
    measured = args.work / "checkpoint"  # and nobody sees a score before
    info = _assemble(args, measured, trained, read_info(args.checkpoint).card)
    report = _measure(args, measured, pairs)
    missed = [] if args.keep_scores else missed_rows(report)
    withhold(trained, missed)
    card = with_section(info.card, SECTION, _figures(args.work))
    info = _assemble(args, args.out, trained, card)
    said = f"missed or not judged: {', '.join(missed)}; scores are withheld" if missed else "scores are shown"
    print(f"{info.folder}  sha256 {info.sha256[:16]}; {said}")


def missed_rows(report: dict[str, Any]) -> list[str]:
    """Rows of the evaluation's JSON for whose sake no score may be shown, each once.

    They are those that missed their targets, unless D13 is met (the answers given keep the rates), and those of
    `NEEDED_ROWS` that were not judged.
    """
    if any(row["row"] == "D13" and row["met"] for row in report["rows"]):
        return []
    rows = [
        row["row"]
        for row in report["rows"]
        if row["row"] not in UNJUDGED_ROWS
        and (row["met"] is False or (row["met"] is None and row["row"] in NEEDED_ROWS))
    ]
    return sorted(set(rows), key=rows.index)


def withhold(folder: Path, missed: list[str]) -> None:
    """Has the detector of a run say why it gives no scores, or give them where nothing was missed."""
    component, model, made_for = load_run(folder)
    rows = ", ".join(missed)
    reason = f"on held-out clips this detector missed its targets, or was not judged ({rows}); see the model card"
    write_run(folder, component, model, replace(model.config, withheld=reason if missed else ""), made_for)


def with_section(card: str, title: str, body: str) -> str:
    """A Markdown card with `## title` and this body in place of its own section of that title, or before its limits."""
    text = f"## {title}\n\n{body.strip()}\n\n"
    old = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    if old:
        return card[: old.start()] + text + card[old.end() :]
    limits = re.search(r"^## Limits$", card, re.MULTILINE)
    start = limits.start() if limits else len(card)
    return card[:start].rstrip("\n") + "\n\n" + text + card[start:]


def _with_defaults(module: Any, common: Namespace, **given: Any) -> Namespace:
    """The arguments of a command as they are where nothing is said, with what is."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    usual = {action.dest: action.default for action in parser._actions if action.dest != "help"}
    return Namespace(**{**usual, **vars(common), **given})


def _is_measured(folder: Path) -> bool:
    if not (folder / "state.json").is_file():
        return False
    read_state(folder)
    return load_run(folder)[1].config.calibration.by_length != ()


def _assemble(args: argparse.Namespace, out: Path, trained: Path, card: str) -> CheckpointInfo:
    base = read_info(args.checkpoint)
    new = args.work / PICTURES
    pictures = {
        name: read_picture((new if (new / name).is_file() else base.folder) / name) for name in picture_names(card)
    }
    return assemble(
        out,
        name=base.name,
        domain=base.domain,
        summary=base.summary,
        card=card,
        runs={"detector": trained},
        base=args.checkpoint,
        pictures=pictures,
    )


def _measure(args: argparse.Namespace, checkpoint: Path, pairs: Path) -> dict[str, Any]:
    """Runs the evaluation, which training does not import, as a command; its report."""
    figures = args.work / "figures.json"
    options: list[Any] = ["--checkpoint", checkpoint, "--pairs", pairs, "--work", args.work, "--json", figures]
    options += ["--markdown", args.work / "figures.md", "--threads", args.threads]
    options += ["--facts", args.work / "facts.json", "--pictures", args.work / PICTURES]
    for name, folders in (("--data", args.data), ("--other", args.other)):
        options += [name, *folders] if folders else []
    _call("audiolm.evaluation", "detector", *options, *(["--items", args.items] if args.items else []))
    return json.loads(figures.read_text(encoding="utf-8"))


def _figures(work: Path) -> str:
    """The body of the card's section: pictures with their captions, then all rows."""
    shown = shown_pictures(json.loads((work / "facts.json").read_text(encoding="utf-8"))["pictures"])
    return "\n\n".join([*shown, (work / "figures.md").read_text(encoding="utf-8")])


def _call(module: str, *arguments: Any) -> None:
    """Raises TrainingError where the command does not succeed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    if (code := subprocess.run(command, check=False).returncode) != 0:
        raise TrainingError(f"{' '.join(command[2:4])} ended with code {code}")
