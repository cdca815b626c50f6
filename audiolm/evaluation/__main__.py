"""`python -m audiolm.evaluation {speech,piano}`: the acceptance figures on the hold-out (split "test").

`python -m audiolm.evaluation detector` measures the detector (`audiolm.evaluation.detection`).

Every row is measured on every corpus given: the hold-out first, then other material, such as another instrument's
timbre or real recordings.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

import torch

from audiolm.checkpoints.components import REQUIRED
from audiolm.config import DOMAINS, STAGES, USUAL_SAMPLING
from audiolm.data.corpus import Corpus
from audiolm.data.tokens import TokenCorpus
from audiolm.errors import AudioLMError, EvaluationError
from audiolm.evaluation import rows
from audiolm.evaluation.continuations import PROMPT_S, TOTAL_S
from audiolm.evaluation.holdout import HoldOut
from audiolm.evaluation.inputs import Inputs
from audiolm.evaluation.report import Report
from audiolm.evaluation.subject import Subject, from_checkpoint, from_runs
from audiolm.request import ContinuationRequest


def main(argv: list[str] | None = None) -> int:
    """Returns 0 whether or not targets are met, 2 where nothing could be measured."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["detector"]:
        from audiolm.evaluation.detection.command import main as measure_detector  # it draws pictures

        return measure_detector(arguments[1:])
    args = _parser().parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        report = _run(args, "python -m audiolm.evaluation " + shlex.join(arguments))
    except AudioLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json is not None:
        args.json.write_text(report.to_json(), encoding="utf-8")
    if args.markdown is not None:
        args.markdown.write_text(report.markdown(), encoding="utf-8")
    return 0


def _run(args: argparse.Namespace, command: str) -> Report:
    """Prints each row as soon as it is measured. A listening report comes alone unless rows are asked for."""
    if args.against is not None and args.listening is None:
        raise EvaluationError("--against sets a second checkpoint's continuations beside: give --listening too")
    usual = rows.of_domain(args.domain) if args.listening is None else []
    wanted = usual if args.rows is None else args.rows.split(",")
    if unknown := [row for row in wanted if row not in rows.ROWS]:
        raise EvaluationError(f"rows are {', '.join(rows.ROWS)}, found {', '.join(unknown)}")
    subject = _subject(args)
    request, progress = _request(args, subject), sys.stderr.isatty()
    corpora = [
        Inputs(args.domain, subject, holdout, request, args.work, progress) for holdout in _holdouts(args, subject)
    ]
    data = ", ".join(one.holdout.name for one in corpora)
    report = Report(args.domain, subject.name, subject.sha256, subject.components, data, command)
    print(report.header())
    for row in wanted:
        for inputs in corpora:
            measured = rows.measure(row, inputs)
            print(f"\n{measured.text()}", flush=True)
            report = dataclasses.replace(report, rows=(*report.rows, measured))
    if args.listening is not None:
        _listen(args, corpora[0], report)
    return report


def _listen(args: argparse.Namespace, inputs: Inputs, about: Report) -> None:
    from audiolm.evaluation.listening import write_report  # draws pictures: most commands need not

    against = None
    if args.against is not None:
        other = _of_domain(from_checkpoint(args.against), args.domain)
        holdout = HoldOut(other, inputs.holdout.corpus, (), args.items)
        against = dataclasses.replace(inputs, subject=other, holdout=holdout, request=_request(args, other))
    about = dataclasses.replace(about, data=inputs.holdout.name)
    print(f"\n{write_report(inputs, args.listening, about, against).summary()}\n{args.listening / 'index.html'}")


def _holdouts(args: argparse.Namespace, subject: Subject) -> list[HoldOut]:
    """One for each corpus; the token caches, and the training split of baselines, belong to the first."""
    corpora = [Corpus(folder) for folder in args.data]
    names = [corpus.folder.name for corpus in corpora]
    if len(set(names)) < len(names):
        raise EvaluationError(f"corpora are told apart by their folders' names, found {', '.join(names)}")
    caches = [TokenCorpus(folder) for folder in args.tokens]
    first = HoldOut(subject, corpora[0] if corpora else None, caches, args.items)
    return [first, *(HoldOut(subject, corpus, (), args.items, first) for corpus in corpora[1:])]


def _subject(args: argparse.Namespace) -> Subject:
    runs = {name: getattr(args, name) for name in REQUIRED if getattr(args, name) is not None}
    if (args.checkpoint is None) == (not runs):
        raise EvaluationError("give either --checkpoint, or training runs (--codec and so on)")
    return from_runs(runs) if runs else _of_domain(from_checkpoint(args.checkpoint), args.domain)


def _of_domain(subject: Subject, domain: str) -> Subject:
    if subject.models.info.domain != domain:
        raise EvaluationError(f"{subject.name} is a checkpoint of {subject.models.info.domain}, not of {domain}")
    return subject


def _request(args: argparse.Namespace, subject: Subject) -> ContinuationRequest:
    """Sampling that is not given is the checkpoint's, or the usual one for runs."""
    prompt_s = PROMPT_S[args.domain] if args.prompt_s is None else args.prompt_s
    continuation_s = TOTAL_S - prompt_s if args.continuation_s is None else args.continuation_s
    request = ContinuationRequest(prompt_s, continuation_s, num_continuations=1, seed=args.seed)
    sampling = dict(USUAL_SAMPLING if subject.models is None else subject.models.info.sampling)
    for stage, value in zip(STAGES, args.temperatures or (), strict=False):
        sampling[stage] = dataclasses.replace(sampling[stage], temperature=value)
    return dataclasses.replace(request, **sampling)


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name}  {row.title} ({' and '.join(row.domains)})" for name, row in rows.ROWS.items())
    parser = argparse.ArgumentParser(
        prog="python -m audiolm.evaluation",
        description=__doc__,
        epilog=f"rows:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domain", choices=DOMAINS)
    parser.add_argument("--checkpoint", help="embedded name, folder or Hub id")
    for name in REQUIRED:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, help="training run, in place of --checkpoint")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="corpus folders, the hold-out first")
    tokens = (
        "token caches, first that of the first corpus: saves encoding for C2 and C4; M wants all that were trained on"
    )
    parser.add_argument("--tokens", type=Path, nargs="+", default=[], help=tokens)
    parser.add_argument("--items", type=int, help="items a row (default: a number of each row's own)")
    parser.add_argument("--rows", help="such as C1,C2 (default: the domain's)")
    work = (
        "folder that keeps the continuations of C5 to C7, the acoustic generation of V and W, and what P, V and W hear"
    )
    parser.add_argument("--work", type=Path, help=work)
    parser.add_argument("--prompt-s", type=float, help="default: 3 for speech, 4 for piano")
    parser.add_argument("--continuation-s", type=float, help="default: what makes 10 s with the prompt")
    parser.add_argument("--temperatures", type=float, nargs=3, metavar=("SEMANTIC", "COARSE", "FINE"), help="(its own)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--listening", type=Path, help="folder for a page of continuations to listen to (20 items)")
    parser.add_argument("--against", help="a second checkpoint whose continuations stand beside, with --listening")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--markdown", type=Path, help="file to write, for the model card")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


if __name__ == "__main__":
    sys.exit(main())
