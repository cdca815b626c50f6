"""What the application was started with: the only reader of the command line and of the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Everything the service and the page need to know about this process.

    `checkpoints` are names of embedded ones, folders of one checkpoint, folders of several, or Hub ids
    (`org/name` or `org/name@revision`); empty means the embedded ones. `other_checkpoints` says whether a visitor may
    name a folder or a Hub id in the page: on by default only where the page is not served to other machines, since it
    makes this machine read folders and download from the Hub for whoever asks. `studies_in_page` says whether a visitor
    may make listening studies and see the owners' links of all that are here: on by default as the one before.
    `watermark` says whether what is generated carries a mark.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    checkpoints: tuple[str, ...] = ()
    threads: int | None = None
    other_checkpoints: bool = True
    watermark: bool = True
    queue_size: int = 16
    line_size: int = 32  # runs that wait for the engine, in `app.engine`
    runs_at_once: int = 8  # that share the engine
    cache_sweep_s: int = 300
    cache_age_s: int = 3000  # with the sweep, an upload is gone within the hour
    prompts_folder: Path = ASSETS / "prompts"
    css_file: Path = ASSETS / "studio.css"
    studies_in_page: bool = True
    studies_folder: Path = Path.home() / ".audiolm" / "studies"  # outside of everything that is served


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Command line over environment (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT: set by Hugging Face Spaces) over defaults.

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
    values = parser.parse_args(arguments)
    if not 0 <= values.port <= 65535:
        parser.error(f"--port must be 0..65535, found {values.port}")
    if values.threads is not None and values.threads < 1:
        parser.error(f"--threads must be at least 1, found {values.threads}")
    if values.runs_at_once < 1:
        parser.error(f"--runs-at-once must be at least 1, found {values.runs_at_once}")
    alone = values.host in LOOPBACK_HOSTS
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
    )
