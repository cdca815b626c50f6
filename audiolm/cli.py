"""The command line: python -m audiolm continue, generate, acoustic, inspect, reconstruct, detect, replay, checkpoints,
watermark, study.

Errors a user can do something about are one line on stderr and exit code 2; an interrupt is exit code 130.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

import audiolm
from audiolm.audio import files
from audiolm.checkpoints import commands as checkpoint_commands
from audiolm.checkpoints.embedded import ASSETS
from audiolm.config import STAGES
from audiolm.detector import Verdict
from audiolm.errors import AudioLMError, CheckpointError, RequestError
from audiolm.events import Event, Progress, Result
from audiolm.inspection.variants import result_of
from audiolm.outputs import read_receipt, write_continuation
from audiolm.pipeline import Pipeline
from audiolm.receipt import Receipt
from audiolm.request import FINE_DECODERS, MAX_CONTINUATION_S, MAX_PROMPT_S, PROMPT_PARTS, ContinuationRequest
from audiolm.streams import Waveform
from audiolm.watermark import commands as watermark_commands

DEFAULTS = ContinuationRequest()
STUDY = "study"  # handed to a program of its own: this package never imports the application

Value = TypeVar("Value")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == [STUDY]:
        return subprocess.call([sys.executable, "-m", "app.study", *given[1:]])
    options = build_parser().parse_args(given)
    try:
        return options.run(options) or 0
    except (AudioLMError, OSError) as error:
        print(f"audiolm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("audiolm: stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="audiolm", description="Continue speech and piano from a few seconds of sound."
    )
    parser.add_argument("--version", action="version", version=f"audiolm {audiolm.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run_commands(commands)
    _add_other_commands(commands)
    commands.add_parser(STUDY, help="listening studies: the application's program, python -m app.study")
    command = commands.add_parser("checkpoints", help="list, verify, fetch, publish and assemble checkpoints")
    checkpoint_commands.add_arguments(command)
    command.set_defaults(run=checkpoint_commands.run)
    command = commands.add_parser("watermark", help="look for the watermark in files, or measure what it survives")
    watermark_commands.add_arguments(command, examples=ASSETS.parent / "prompts")
    command.set_defaults(run=run_watermark)
    return parser


def _add_run_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("continue", help="go on from the start of a recording")
    command.add_argument("prompt", type=Path, help="WAV, FLAC, OGG or MP3")
    command.add_argument("--prompt-seconds", type=float, default=DEFAULTS.prompt_s, help="how much of it is used")
    command.add_argument(
        "--prompt-part", choices=PROMPT_PARTS, default=DEFAULTS.prompt_part, help="heard before the join"
    )
    _add_run_options(command, DEFAULTS.continuation_s)
    command.set_defaults(run=run_continue)

    command = commands.add_parser("generate", help="from nothing")
    _add_run_options(command, DEFAULTS.continuation_s)
    command.set_defaults(run=run_generate)

    command = commands.add_parser("acoustic", help="the content of a recording in another voice or on another piano")
    command.add_argument("source", type=Path, help="the recording whose semantic tokens are followed")
    command.add_argument(
        "--voice", type=Path, help="a recording whose start is the prompt; without it the model chooses"
    )
    command.add_argument("--prompt-seconds", type=float, default=DEFAULTS.prompt_s, help="how much of --voice is used")
    _add_run_options(command, MAX_CONTINUATION_S)
    command.set_defaults(run=run_acoustic)

    command = commands.add_parser("inspect", help="the timeline of a recording or of its continuation, as a folder")
    command.add_argument("clip", type=Path, help="WAV, FLAC, OGG or MP3")
    command.add_argument("--continue-seconds", type=float, help="inspect a continuation of this length, not the clip")
    command.add_argument("--prompt-seconds", type=float, default=DEFAULTS.prompt_s, help="how much of it is the prompt")
    command.add_argument("--ladder", action="store_true", help="also from fewer and fewer codec levels")
    command.add_argument("--voices", type=int, default=0, metavar="K", help="also its content in K voices")
    command.add_argument("--voice", type=Path, help="a recording: --voices follow it; without it the model chooses")
    command.add_argument("--ablations", action="store_true", help="also continued with a part of the model left out")
    _add_sampling_options(command)
    command.set_defaults(run=run_inspect)

    command = commands.add_parser("replay", help="make an output again from its receipt, with identical tokens")
    command.add_argument("receipt", type=Path, help="NAME.receipt.json, or the WAV file itself")
    command.add_argument("prompt", type=Path, nargs="?", help="the recording it was made from (acoustic: the voice)")
    command.add_argument("--source", type=Path, help="the recording an acoustic generation followed")
    _add_output_options(command)
    _add_model_options(command, checkpoint=None)
    command.set_defaults(run=run_replay)


def _add_other_commands(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("reconstruct", help="a recording through the codec")
    command.add_argument("recording", type=Path)
    command.add_argument("--levels", type=int, help="how many quantizer levels to decode from (all)")
    command.add_argument("--out", type=Path, default=Path("out"), help="folder")
    _add_model_options(command)
    command.set_defaults(run=run_reconstruct)

    command = commands.add_parser("detect", help="the detector's verdict on a recording")
    command.add_argument("recording", type=Path)
    command.add_argument("--json", action="store_true")
    _add_model_options(command)
    command.set_defaults(run=run_detect)


def run_continue(options: argparse.Namespace) -> None:
    pipeline = _pipeline(options)
    request = _request(options, pipeline, prompt_s=options.prompt_seconds, prompt_part=options.prompt_part)
    prompt = files.read_waveform(options.prompt, max_s=request.prompt_s)
    result = follow(pipeline.continue_prompt(prompt, request))
    _write(result, options.out, options.prompt.stem)


def run_generate(options: argparse.Namespace) -> None:
    pipeline = _pipeline(options)
    _write(follow(pipeline.generate(_request(options, pipeline))), options.out, "generated")


def run_acoustic(options: argparse.Namespace) -> None:
    pipeline = _pipeline(options)
    request = _request(options, pipeline, prompt_s=options.prompt_seconds)
    source = files.read_waveform(options.source, max_s=request.continuation_s)
    voice = _optional_waveform(options.voice, request.prompt_s)
    _write(follow(pipeline.acoustic(source, request, voice)), options.out, options.source.stem)


def run_inspect(options: argparse.Namespace) -> None:
    from audiolm.inspection.report import Plan, inspect  # matplotlib: half a second that no other command needs

    pipeline, continued = _pipeline(options), options.continue_seconds is not None
    lengths = {"continuation_s": options.continue_seconds} if continued else {}
    request = _request(options, pipeline, prompt_s=options.prompt_seconds, **lengths)
    voice = _optional_waveform(options.voice, request.prompt_s)
    plan = Plan(continued, options.ladder, options.voices, voice, options.ablations)
    clip = files.read_waveform(options.clip, max_s=MAX_PROMPT_S + MAX_CONTINUATION_S)
    complete(inspect(pipeline, clip, request, plan, options.out))
    print(options.out / "timeline.png")


def run_reconstruct(options: argparse.Namespace) -> None:
    waveform = files.read_waveform(options.recording)
    pipeline = _pipeline(options)
    levels = pipeline.models.codec.num_levels if options.levels is None else options.levels
    decoded = pipeline.reconstruct(waveform, levels)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{options.recording.stem}_levels{levels}.wav"
    note = {"label": "through the codec", "checkpoint": pipeline.models.info.name, "levels": levels}
    files.write_wav(path, decoded, json.dumps(note))
    print(path)


def run_detect(options: argparse.Namespace) -> None:
    verdict = _pipeline(options).detect(files.read_waveform(options.recording))
    print(json.dumps(verdict.to_dict()) if options.json else _sentence(verdict))


def run_replay(options: argparse.Namespace) -> None:
    receipt = read_receipt(options.receipt)
    prompt = _optional_waveform(options.prompt, receipt.request.prompt_s)
    source = _optional_waveform(options.source, receipt.request.continuation_s)
    pipeline = _pipeline(options) if options.checkpoint else _pipeline_of(receipt, options)
    result = follow(pipeline.replay(receipt, prompt, source))
    print("identical tokens")
    name = (options.source or options.prompt or Path("generated")).stem
    _write_row(result, receipt.row, options.out, name)


def run_watermark(options: argparse.Namespace) -> int:
    from audiolm.evaluation.degradations import DEGRADATIONS

    return watermark_commands.run(options, DEGRADATIONS)


def follow(events: Generator[Event]) -> Result:
    """A run to its end."""
    return complete(result_of(events))


def complete(events: Generator[Event, None, Value]) -> Value:
    """Runs to the end, with a progress bar for each stage where stderr is a terminal; what the generator returns."""
    bar, stage = tqdm(disable=True), ""
    try:
        while True:
            event = next(events)
            if isinstance(event, Progress):
                if event.stage != stage:
                    bar.close()
                    bar, stage = tqdm(desc=event.stage, total=event.total, disable=None, leave=False), event.stage
                bar.n = event.done
                bar.set_postfix_str(f"{event.tokens_per_s:.0f} tokens/s" if event.tokens_per_s else "")
    except StopIteration as end:
        return end.value
    finally:
        bar.close()


def _add_model_options(parser: argparse.ArgumentParser, checkpoint: str | None = "speech-small") -> None:
    shown = checkpoint or "the embedded one of the receipt's name"
    parser.add_argument("--checkpoint", default=checkpoint, help=f"embedded name, folder or Hub id ({shown})")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--threads", type=int, help="CPU threads")


def _add_run_options(parser: argparse.ArgumentParser, seconds: float) -> None:
    parser.add_argument("--seconds", type=float, default=seconds, help=f"length to generate, at most ({seconds:g})")
    parser.add_argument("--count", type=int, default=DEFAULTS.num_continuations, help="how many at once")
    parser.add_argument(
        "--fine-decoder", choices=FINE_DECODERS, default=DEFAULTS.fine_decoder, help="the fine stage, how it works"
    )
    _add_sampling_options(parser)


def _add_sampling_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, help="the same seed gives the same tokens; without it, a new one")
    for stage in STAGES:
        parser.add_argument(f"--temperature-{stage}", type=float, help="(the checkpoint's)")
        parser.add_argument(f"--top-k-{stage}", type=int, help="0 keeps every token (the checkpoint's)")
        parser.add_argument(f"--top-p-{stage}", type=float, help="1 keeps every token (the checkpoint's)")
    _add_output_options(parser)
    _add_model_options(parser)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder")
    parser.add_argument(
        "--no-watermark", dest="watermark", action="store_false", help="leave what is generated without a watermark"
    )


def _request(options: argparse.Namespace, pipeline: Pipeline, **fields: float | str) -> ContinuationRequest:
    """Sampling that is not given is the checkpoint's. Commands without --seconds and --count give them as fields."""
    if "seconds" in options:
        fields = {"continuation_s": options.seconds, "num_continuations": options.count, **fields}
        fields["fine_decoder"] = options.fine_decoder
    sampling = dict(pipeline.models.info.sampling)
    for stage in STAGES:
        given = {name: getattr(options, f"{name}_{stage}") for name in ("temperature", "top_k", "top_p")}
        given = {name: value for name, value in given.items() if value is not None}
        sampling[stage] = dataclasses.replace(sampling[stage], **given)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    print(f"seed {seed}")
    return ContinuationRequest(seed=seed, **sampling, **fields)


def _pipeline(options: argparse.Namespace) -> Pipeline:
    if options.threads is not None:
        if options.threads < 1:
            raise RequestError(f"--threads must be at least 1, found {options.threads}")
        torch.set_num_threads(options.threads)
    watermark = "watermark" in options and options.watermark
    return Pipeline.load(options.checkpoint, options.revision, options.device, watermark)


def _pipeline_of(receipt: Receipt, options: argparse.Namespace) -> Pipeline:
    """The embedded checkpoint of the receipt's name: a receipt does not know folders and Hub ids."""
    options.checkpoint = receipt.checkpoint
    try:
        return _pipeline(options)
    except CheckpointError as error:
        raise CheckpointError(
            f"give --checkpoint: it must have sha256 {receipt.checkpoint_sha256} ({error})"
        ) from error


def _optional_waveform(path: Path | None, max_s: float) -> Waveform | None:
    return None if path is None else files.read_waveform(path, max_s=max_s)


def _write(result: Result, folder: Path, name: str) -> None:
    for row in range(len(result.continuations)):
        _write_row(result, row, folder, name)
    print(f"{result.seconds:.1f} s of work, {result.real_time_factor:.2f} s for a second of sound")


def _write_row(result: Result, row: int, folder: Path, name: str) -> None:
    continuation = result.continuations[row]
    written = write_continuation(continuation, folder, f"{name}_{row + 1}")
    verdict = "" if continuation.verdict is None else f"  {_sentence(continuation.verdict)}"
    print(f"{written.whole}{verdict}")


def _sentence(verdict: Verdict) -> str:
    """The verdict with what it is worth."""
    if verdict.probability is None:
        return f"detector: {verdict.label} ({verdict.reason})"
    positives, negatives = _percent(verdict.false_positive_rate), _percent(verdict.false_negative_rate)
    part = f" from {verdict.judged_from_s:.1f} s on" if verdict.judged_from_s else ""
    boundary = "" if verdict.boundary_s is None else f"{verdict.boundary_name} at {verdict.boundary_s:.1f} s; "
    band = f"uncertain between {verdict.uncertain_low:.3f} and {verdict.uncertain_high:.3f}"
    length = "" if verdict.measured_s is None else f" of {verdict.measured_s:g} s"
    answers = (
        f"{_percent(verdict.wrong_rate)} of {verdict.num_answers:,} answers wrong (both kinds count the same), "
        if verdict.num_answers
        else ""
    )
    return (
        f"detector: {verdict.label}{part}, {verdict.probability:.3f} against a threshold of {verdict.threshold:.2f}, "
        f"{band} ({boundary}held-out clips{length}: {answers}by the threshold alone "
        f"{positives} of {verdict.num_originals:,} originals, {negatives} of {verdict.num_generated:,} generated; "
        f"{verdict.scope}; detector {verdict.model_sha256[:12]})"
    )


def _percent(rate: float | None) -> str:
    return "an unknown share" if rate is None else f"{100 * rate:.1f} %"
