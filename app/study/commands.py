"""The command line of listening studies: new, preflight, serve, status, export, backup, restore, and smaller ones."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.settings import Settings
from app.study import archive
from app.study.amendments import amended, read_amendments
from app.study.analysis import Figure, Results, analyse
from app.study.definition import json_schema
from app.study.errors import UnknownStudyError
from app.study.export import export_files
from app.study.library import Library
from app.study.preflight import preflight
from app.study.presets import PRESETS, SOURCES, Version
from app.study.recipe import Recipe
from app.study.statistics import planner
from audiolm.errors import AudioLMError

_VERSION_FIELDS = {"checkpoint": str, "ablation": str, "levels": int, "cutoff_hz": float}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. Errors one can do something about are one line and exit code 2."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except (AudioLMError, OSError, ValueError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="study", description="Listening studies: make, run and analyse them.")
    parser.add_argument("--studies", type=Path, default=Settings.studies_folder, help="folder (%(default)s)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_new(commands)
    for name, run, text in (
        ("preflight", run_preflight, "check a study's clips again"),
        ("status", run_status, "who took part, and how it stands; without a study: all of them"),
        ("close", run_close, "take no more participants"),
        ("open", run_open, "take participants again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("study", nargs="?" if name == "status" else None, help="id")
        command.set_defaults(run=run)
    _add_others(commands)
    return parser


def _add_new(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("new", help="make a study from recordings")
    command.add_argument("preset", choices=PRESETS, help="; ".join(f"{p.name}: {p.label}" for p in PRESETS.values()))
    command.add_argument("prompts", type=Path, nargs="+", help="recordings at least as long as a clip")
    command.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id (%(default)s)")
    command.add_argument("--title", default="", help="what participants see")
    command.add_argument(
        "--version",
        action="append",
        default=[],
        type=parse_version,
        metavar="NAME=SOURCE[,FIELD=VALUE…]",
        help=f"a condition, for each of them once; source: {', '.join(SOURCES)}; fields: {', '.join(_VERSION_FIELDS)}",
    )
    command.add_argument("--clip-seconds", type=float, default=0.0, help="(the preset's)")
    command.add_argument("--prompt-seconds", type=float, default=0.0, help="(the preset's)")
    command.add_argument("--seed", type=int, help="of continuations and orders; without it, a new one")
    command.add_argument("--practice", type=int, default=1, help="so many of the last recordings are for practice (1)")
    command.add_argument("--sessions", type=int, default=0, help="completed sessions wanted (the preset's)")
    command.add_argument("--trials", type=int, default=0, help="scored trials a session (the preset's)")
    command.add_argument(
        "--no-watermark", dest="watermark", action="store_false", help="otherwise every clip is marked, recordings too"
    )
    command.add_argument(
        "--amend",
        type=Path,
        metavar="FILE",
        help="JSON with what is to be otherwise of the study file's texts, checks, plan and codes (see: schema)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    command.set_defaults(run=run_new)


def _add_others(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("serve", help="the participants' and owners' pages alone, without the studio")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=7861)
    command.set_defaults(run=run_serve)
    command = commands.add_parser("export", help="CSV, JSON, data dictionary and methods paragraph, into a folder")
    command.add_argument("study", help="id")
    command.add_argument("--out", type=Path, help="folder (the study's id)")
    command.add_argument("--with-ids", action="store_true", help="with the recruiting platform's ids")
    command.set_defaults(run=run_export)
    command = commands.add_parser("backup", help="all studies, answers and secrets as one ZIP file")
    command.add_argument("target", type=Path)
    command.set_defaults(run=run_backup)
    command = commands.add_parser("restore", help="take over a backup; sessions withdrawn since stay gone")
    command.add_argument("source", type=Path)
    command.set_defaults(run=run_restore)
    command = commands.add_parser("plan", help="how many ratings show equivalence to chance")
    command.add_argument("--margin", type=float, default=0.05, help="as a share (0.05)")
    command.add_argument("--power", type=float, default=0.9, help="(0.9)")
    command.add_argument("--design-effect", type=float, default=1.0, help="of clustered ratings (1)")
    command.set_defaults(run=run_plan)
    command = commands.add_parser("schema", help="the JSON schema of a study file")
    command.set_defaults(run=run_schema)


def parse_version(text: str) -> Version:
    """ "coded=codec,levels=4" -> Version. Raises argparse.ArgumentTypeError."""
    name, _, rest = text.partition("=")
    source, *pairs = rest.split(",")
    try:
        fields = {key: _VERSION_FIELDS[key](value) for key, _, value in (pair.partition("=") for pair in pairs)}
        return Version(name, source, **fields)
    except (KeyError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def run_new(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from app.offer import Offer
    from app.study.clips import Rendered, render
    from audiolm.device import pick_device

    recipe = Recipe(
        preset=options.preset,
        checkpoint=options.checkpoint,
        prompts=tuple(options.prompts),
        title=options.title,
        versions=tuple(options.version),
        clip_s=options.clip_seconds,
        prompt_s=options.prompt_seconds,
        seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
        num_practice=options.practice,
        target_sessions=options.sessions,
        trials_per_session=options.trials,
        watermark=options.watermark,
    )
    amendments = read_amendments(options.amend.read_bytes()) if options.amend else {}
    offer = Offer(replace(Settings(), other_checkpoints=True), pick_device(options.device))
    with tqdm(desc="clips", disable=None, leave=False) as bar:
        for event in render(offer, recipe):
            if isinstance(event, Rendered):
                break
            bar.total, bar.n = event.total, event.done
            bar.refresh()
    library = Library(options.studies)
    study = amended(event.study, amendments)
    folder = library.add(study, event.clips, event.owner_token)
    page, wanted = library.store.page(study.id), study.plan.target_sessions
    print(f"{study.id}  {page.title}  ({folder})")
    print(f"{len(event.clips)} clips, about {page.minutes} minutes a session, {wanted} sessions wanted")
    _print_links("", study.id, event.owner_token)


def run_preflight(options: argparse.Namespace) -> int:
    library = Library(options.studies)
    report = preflight(library.store.study(options.study), library.clip_files(options.study))
    for problem in report.problems:
        print(f"refused: {problem}")
    low, high = report.loudness_lufs
    print(
        f"{report.num_clips} clips of {report.num_samples[0]} to {report.num_samples[1]} samples, "
        f"{low:.3f} to {high:.3f} LUFS, {report.num_cells} lists"
    )
    return 1 if report.problems else 0


def run_serve(options: argparse.Namespace) -> None:
    import uvicorn
    from starlette.applications import Starlette

    from app.study.routes import study_route

    library = Library(options.studies)
    for study_id in library.store.studies():
        print(f"{study_id}  {library.store.study(study_id).texts.title}")
        try:
            _print_links(f"http://{options.host}:{options.port}", study_id, library.owner_token(study_id))
        except UnknownStudyError as error:  # its folder was deleted: the others are served all the same
            print(error)
    app = Starlette(routes=[study_route(library)])
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", access_log=False, server_header=False)


def run_status(options: argparse.Namespace) -> None:
    library = Library(options.studies)
    for study_id in [options.study] if options.study else library.store.studies():
        records = library.store.results(study_id)
        results = analyse(records, with_mixed=False)
        _print_status(results, records.closed)
        if options.study:
            for figure in results.figures:
                print(f"  {_line(figure)}")
            for test in results.tests:
                print(f"  {test.name}: p = {test.p_value:.4f} (n = {test.n}; {test.note}). {test.decision}")


def _print_status(results: Results, closed: bool) -> None:
    counts = results.counts
    state = "closed" if closed else "open"
    print(f"{results.study_id}  {results.title}  ({results.kind}, {state})")
    print(
        f"  {counts.complete} of {counts.target} sessions complete ({counts.excluded} excluded), "
        f"{counts.running} running, {counts.lapsed} idle, {counts.screened_out} screened out, "
        f"{counts.declined} declined, {counts.withdrawn} withdrawn; lists differ by {counts.spread}; "
        f"{counts.ratings} ratings"
    )


def _line(figure: Figure) -> str:
    if figure.value is None:
        return f"{figure.name}: - ({figure.note})"
    interval = "" if figure.low is None or figure.high is None else f" ({figure.low:.3f} to {figure.high:.3f})"
    return f"{figure.name}: {figure.value:.3f}{interval}, n = {figure.n}. {figure.note}"


def run_close(options: argparse.Namespace) -> None:
    Library(options.studies).store.close_study(options.study)


def run_open(options: argparse.Namespace) -> None:
    Library(options.studies).store.close_study(options.study, closed=False)


def run_export(options: argparse.Namespace) -> None:
    folder = options.out or Path(options.study)
    files = export_files(Library(options.studies).store.results(options.study), options.with_ids)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        print(folder / name)


def run_backup(options: argparse.Namespace) -> None:
    print(f"{archive.backup(Library(options.studies), options.target)} files in {options.target}")


def run_restore(options: argparse.Namespace) -> None:
    print(f"{archive.restore(Library(options.studies), options.source)} studies from {options.source}")


def run_plan(options: argparse.Namespace) -> None:
    planned = planner(options.margin, options.power, options.design_effect)
    print(f"{planned.ratings} ratings show equivalence within {100 * planned.margin:g} points of chance")
    print(
        f"  at 5 %, with a power of {planned.power:g} after the normal approximation, "
        f"of {planned.exact_power:.3f} exactly;"
    )
    print(f"  from {planned.ratings_exact} on the exact test has that power")
    print(f"{planned.ratings_interval} ratings make a 95 % interval of +-{100 * planned.margin:g} points")


def run_schema(options: argparse.Namespace) -> None:
    print(json.dumps(json_schema(), indent=1))


def _print_links(address: str, study_id: str, owner_token: str) -> None:
    print(f"participants: {address}/study/{study_id}")
    print(f"results:      {address}/study/{study_id}/results#{owner_token}")
