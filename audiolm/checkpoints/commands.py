"""`python -m audiolm checkpoints list | verify | pull | push | assemble`. Errors are CheckpointError."""

from __future__ import annotations

import argparse
from pathlib import Path

from audiolm.checkpoints import card, embedded, registry
from audiolm.checkpoints.assemble import assemble
from audiolm.checkpoints.components import COMPONENTS
from audiolm.checkpoints.format import CheckpointInfo, load_checkpoint, read_info
from audiolm.checkpoints.info import check_sampling, read_card
from audiolm.checkpoints.pictures import read_pictures
from audiolm.checkpoints.strict_json import read_object
from audiolm.config import DOMAINS
from audiolm.errors import CheckpointError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = actions.add_parser("list", help="the embedded checkpoints")
    action.set_defaults(run_action=_list)

    action = actions.add_parser("verify", help="load a checkpoint and check every file's SHA-256")
    action.add_argument("source", help="embedded name, folder or Hub id")
    action.add_argument("--revision", help="branch, tag or commit of a Hub id")
    action.set_defaults(run_action=_verify)

    action = actions.add_parser("pull", help="fetch a checkpoint from the Hugging Face Hub and verify it")
    action.add_argument("id", help="owner/name")
    action.add_argument("--revision", help="branch, tag or commit (main)")
    action.set_defaults(run_action=_pull)

    action = actions.add_parser("push", help="publish a checkpoint folder on the Hugging Face Hub as one commit")
    action.add_argument("folder", type=Path)
    action.add_argument("id", help="owner/name; created where it does not exist")
    action.add_argument("--private", action="store_true", help="for a repository that is created")
    action.set_defaults(run_action=_push)

    action = actions.add_parser("assemble", help="make a checkpoint of training runs")
    action.add_argument("out", type=Path, help="folder; an older checkpoint there is replaced")
    for component in COMPONENTS:
        action.add_argument(_option(component), type=Path, metavar="RUN", help=f"run folder of the {component}")
    action.add_argument(
        "--from", dest="base", type=Path, metavar="FOLDER", help="checkpoint that has what the runs lack"
    )
    action.add_argument("--without-detector", action="store_true", help="leave out the detector of --from")
    action.add_argument("--name", help="(that of --from)")
    action.add_argument("--domain", choices=DOMAINS, help="(that of --from)")
    action.add_argument("--summary", help="one or two lines for the picker (that of the card's facts, or of --from)")
    action.add_argument("--card", type=Path, metavar="FILE", help="facts (.json) or Markdown (that of --from)")
    action.add_argument(
        "--sampling", type=Path, metavar="FILE", help="its defaults, as `audiolm.evaluation.sampling --out` writes them"
    )
    action.set_defaults(run_action=_assemble)


def run(args: argparse.Namespace) -> int:
    """Runs the chosen action; returns the exit code. Raises CheckpointError."""
    args.run_action(args)
    return 0


def _list(args: argparse.Namespace) -> None:
    infos = registry.available()
    for info in infos:
        _describe(info)
    if not infos:
        print(f"no checkpoints in {embedded.ASSETS}")


def _verify(args: argparse.Namespace) -> None:
    info = load_checkpoint(registry.resolve(args.source, args.revision)).info
    _describe(info)
    for component, entry in info.components.items():
        print(f"  {component:15} ok  {entry.hash}")


def _pull(args: argparse.Namespace) -> None:
    from audiolm.checkpoints import hub  # huggingface_hub is needed by nothing else

    folder = hub.fetch(args.id, args.revision)
    _describe(load_checkpoint(folder).info)
    print(f"  {folder}")


def _push(args: argparse.Namespace) -> None:
    from audiolm.checkpoints import hub

    print(hub.push(args.folder, args.id, private=args.private))


def _assemble(args: argparse.Namespace) -> None:
    base = None if args.base is None else read_info(args.base)
    runs = {name: path for name in COMPONENTS if (path := getattr(args, name)) is not None}
    text, facts, pictures = _card(args, base)
    info = assemble(
        args.out,
        name=_choose("--name", args.name, facts.get("name"), base and base.name),
        domain=_choose("--domain", args.domain, facts.get("domain"), base and base.domain),
        summary=_choose("--summary", args.summary, facts.get("summary"), base and base.summary),
        card=text,
        runs=runs,
        base=args.base,
        without=("detector",) if args.without_detector else (),
        sampling=None if args.sampling is None else check_sampling(str(args.sampling), read_object(args.sampling)),
        pictures=pictures,
    )
    _describe(info)


def _card(args: argparse.Namespace, base: CheckpointInfo | None) -> tuple[str, dict[str, str], dict[str, bytes]]:
    """(Markdown, facts or {}, pictures by name)."""
    if args.card is None:
        if base is None:
            raise CheckpointError("assemble needs --card, or --from a checkpoint that has one")
        return base.card, {}, read_pictures(base.folder, base.card)
    if args.card.suffix == ".json":
        facts = card.read_facts(args.card)
        return card.render(facts), facts, card.read_facts_pictures(args.card, facts)
    text = read_card(args.card)
    return text, {}, read_pictures(args.card.parent, text)


def _choose(option: str, *values: str | None) -> str:
    for value in values:
        if value:
            return value
    raise CheckpointError(f"assemble needs {option}, or --from a checkpoint that has it")


def _option(component: str) -> str:
    return "--" + component.replace("_", "-")


def _describe(info: CheckpointInfo) -> None:
    size = sum((info.folder / name).stat().st_size for entry in info.components.values() for name in entry.files)
    print(f"{info.name}  {info.domain}  {size / 2**20:.1f} MiB  sha256 {info.sha256[:16]}")
    for line in info.summary.splitlines():
        print(f"  {line}")
