"""What the application was started with: the only reader of the command line and of the environment."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.limits import WorkLimits

ASSETS = Path(__file__).resolve().parent.parent / "assets"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
SPACES = "https://huggingface.co"
PUBLIC_RUNS_AT_ONCE = 4  # of a visitor
PUBLIC_SHARE_OF_ADDRESS = 0.75  # of all runs that are under way or waiting: of two or more, somebody else finds a place
PUBLIC_RUNS_OF_VISITOR, PUBLIC_RUNS_OF_ADDRESS = 30, 120  # in ten minutes; a house or a school has one address
PUBLIC_POSTS = 3000  # of an address in ten minutes: answers of a class of listeners, all events of the page
PUBLIC_UPLOAD_BYTES = 2**30  # of an address in an hour
USER_ID = getattr(os, "getuid", lambda: 0)()


@dataclass(frozen=True)
class Settings:
    """Everything the service and the page need to know about this process.

    `checkpoints` are names of embedded ones, folders of one checkpoint, folders of several, or Hub ids
    (`org/name` or `org/name@revision`); empty means the embedded ones. `other_checkpoints` says whether a visitor may
    name a folder or a Hub id in the page: on by default only where the page is not served to other machines, since it
    makes this machine read folders and download from the Hub for whoever asks. `studies_in_page` says whether a visitor
    may make listening studies and see the owners' links of all that are here: on by default as the one before.
    `watermark` says whether what is generated carries a mark. `local` says that no other machine is served, and
    `work` bounds the runs: by default with shares of visitors and addresses only where others are served, as for
    `upload_bytes_per_hour` and `posts_per_address` (0: no limit). `num_proxies` are those in front whose word on
    addresses is taken.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    checkpoints: tuple[str, ...] = ()
    threads: int | None = None
    other_checkpoints: bool = True
    watermark: bool = True
    queue_size: int = 128  # of Gradio's own; what counts is `work`
    local: bool = True
    work: WorkLimits = field(default_factory=WorkLimits)
    num_proxies: int = 0
    frame_ancestors: str = "'self'"
    login_file: Path | None = None
    metrics: bool = False
    log_json: bool = False
    grace_s: float = 8.0  # for runs under way when the server is stopped; Docker waits for 10 s
    cache_folder: Path = Path(tempfile.gettempdir()) / f"audiolm-studio-{USER_ID}"
    upload_bytes_per_hour: int = 0
    posts_per_address: int = 0
    max_cache_bytes: int = 8 * 2**30
    line_size: int = 32  # runs that wait for the engine, in `app.engine`; `work` bounds those of visitors
    runs_at_once: int = 8  # that share the engine
    cache_sweep_s: int = 300
    cache_age_s: int = 3000  # with the sweep, an upload is gone within the hour
    prompts_folder: Path = ASSETS / "prompts"
    css_file: Path = ASSETS / "studio.css"
    studies_in_page: bool = True
    studies_folder: Path = Path.home() / ".audiolm" / "studies"  # outside of everything that is served


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Command line over environment over defaults.

    Of the environment: GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and SPACE_ID, set by Hugging Face Spaces, which are
    behind a proxy and in a frame; GRADIO_TEMP_DIR, where uploads and results lie for less than an hour.

    Raises SystemExit, with a message naming the option, on a value out of range.
    """
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(
        prog="app.py", description="AudioLM Studio: continue speech and piano in the browser."
    )
    parser.add_argument("--host", default=environment.get("GRADIO_SERVER_NAME") or Settings.host)
    parser.add_argument("--port", type=int, default=environment.get("GRADIO_SERVER_PORT") or Settings.port)
    parser.add_argument("--device", default=Settings.device, help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument(
        "--checkpoints",
        nargs="+",
        default=[],
        metavar="NAME|FOLDER|ORG/NAME[@REVISION]",
        help="checkpoints to offer (default: the embedded ones)",
    )
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--runs-at-once",
        type=int,
        default=Settings.runs_at_once,
        help="runs that share the engine; further ones wait (default: %(default)s)",
    )
    parser.add_argument(
        "--other-checkpoints",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let visitors name a folder or Hub id (default: only when serving this machine alone)",
    )
    parser.add_argument(
        "--studies",
        type=Path,
        default=Settings.studies_folder,
        metavar="FOLDER",
        help="where listening studies and their answers are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--studies-in-page",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="let visitors make studies and see the owners' links (default: only when serving this machine alone)",
    )
    parser.add_argument(
        "--no-watermark", dest="watermark", action="store_false", help="leave what is generated without a watermark"
    )
    _add_public_options(parser, in_space=bool(environment.get("SPACE_ID")))
    values = parser.parse_args(arguments)
    if not 0 <= values.port <= 65535:
        parser.error(f"--port must be 0..65535, found {values.port}")
    for name in ("threads", "max_runs", "runs_at_once"):
        if (found := getattr(values, name)) is not None and found < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, found {found}")
    for name in ("proxies", "runs_per_visitor", "runs_per_address", "grace"):
        if (found := getattr(values, name)) is not None and found < 0:
            parser.error(f"--{name.replace('_', '-')} must be at least 0, found {found:g}")
    alone = values.host in LOOPBACK_HOSTS
    per_visitor, per_address = (0, 0) if alone else (PUBLIC_RUNS_OF_VISITOR, PUBLIC_RUNS_OF_ADDRESS)
    return Settings(
        host=values.host,
        port=values.port,
        device=values.device,
        checkpoints=tuple(values.checkpoints),
        threads=values.threads,
        runs_at_once=values.runs_at_once,
        other_checkpoints=alone if values.other_checkpoints is None else values.other_checkpoints,
        watermark=values.watermark,
        studies_in_page=alone if values.studies_in_page is None else values.studies_in_page,
        studies_folder=values.studies,
        local=alone,
        line_size=max(Settings.line_size, values.max_runs),
        work=WorkLimits(
            max_runs=values.max_runs,
            max_runs_of_visitor=0 if alone else PUBLIC_RUNS_AT_ONCE,
            max_runs_of_address=0 if alone else max(1, int(PUBLIC_SHARE_OF_ADDRESS * values.max_runs)),
            per_visitor=per_visitor if values.runs_per_visitor is None else values.runs_per_visitor,
            per_address=per_address if values.runs_per_address is None else values.runs_per_address,
        ),
        num_proxies=values.proxies,
        frame_ancestors=" ".join(values.frame_ancestors),
        login_file=values.auth,
        metrics=values.metrics,
        log_json=values.log_json,
        grace_s=values.grace,
        cache_folder=Path(environment.get("GRADIO_TEMP_DIR") or Settings.cache_folder),
        upload_bytes_per_hour=0 if alone else PUBLIC_UPLOAD_BYTES,
        posts_per_address=0 if alone else PUBLIC_POSTS,
    )


def _add_public_options(parser: argparse.ArgumentParser, in_space: bool) -> None:
    """What matters where others are served."""
    group = parser.add_argument_group("serving others")
    group.add_argument(
        "--auth",
        type=Path,
        metavar="FILE",
        help="ask for a login: a file of lines NAME:PASSWORD that only you may read",
    )
    group.add_argument(
        "--proxies", type=int, default=int(in_space), metavar="N", help="reverse proxies in front (default: 0)"
    )
    group.add_argument(
        "--frame-ancestors",
        nargs="+",
        default=[Settings.frame_ancestors, *([SPACES] if in_space else [])],
        metavar="SOURCE",
        help="pages that may show this one in a frame, such as https://huggingface.co (default: 'self')",
    )
    group.add_argument(
        "--max-runs", type=int, default=WorkLimits.max_runs, metavar="N", help="running and waiting (default: 16)"
    )
    for who, number in (("visitor", PUBLIC_RUNS_OF_VISITOR), ("address", PUBLIC_RUNS_OF_ADDRESS)):
        told = f"taken from one {who} in ten minutes (default: {number}; no limit when serving this machine alone: 0)"
        group.add_argument(f"--runs-per-{who}", type=int, metavar="N", help=told)
    group.add_argument("--metrics", action="store_true", help="serve /metrics for Prometheus, to whoever asks")
    group.add_argument("--log-json", action="store_true", help="log JSON lines, with one for every run")
    group.add_argument(
        "--grace", type=float, default=Settings.grace_s, metavar="SECONDS", help="for runs when stopped (default: 8)"
    )
