"""One run of the pipeline taken apart: tokens a second and milliseconds a step of each stage, real-time factors."""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from audiolm.audio import files
from audiolm.config import SAMPLE_RATE_HZ
from audiolm.events import Result
from audiolm.pipeline import Pipeline
from audiolm.receipt import describe_device, versions
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform

CODEC_CLIP_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub id")
    parser.add_argument("--prompt", type=Path, help="a recording (a synthetic one)")
    parser.add_argument("--prompt-seconds", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=7.0, help="of continuation")
    parser.add_argument("--count", type=int, default=1, help="continuations at once")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--no-watermark", dest="watermark", action="store_false", help="where resemble-perth is missing"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Raises RequestError for lengths that cannot be, CheckpointError, WatermarkError."""
    request = ContinuationRequest(args.prompt_seconds, args.seconds, num_continuations=args.count)
    prompt = None if args.prompt is None else files.read_waveform(args.prompt, max_s=request.prompt_s)
    pipeline = Pipeline.load(args.checkpoint, args.revision, args.device, args.watermark)
    request = dataclasses.replace(request, **pipeline.models.info.sampling)
    return measure(pipeline, request, prompt, args.runs).to_dict()


@dataclass(frozen=True)
class StageSpeed:
    """One stage of one run. `real_time_factor`: its seconds for a second of generated sound."""

    stage: str
    steps: int
    tokens: int
    seconds: float
    tokens_per_s: float
    ms_per_step: float
    real_time_factor: float


@dataclass(frozen=True)
class Speed:
    """All that one benchmark says; factors under 1 are faster than real time.

    `processor_s` is processor time over all threads; `seconds` well beyond it mean that the machine was busy elsewhere.
    """

    checkpoint: str
    generated_s: float
    num_continuations: int
    stages: tuple[StageSpeed, ...]
    seconds: float
    processor_s: float
    real_time_factor: float
    encode_real_time_factor: float
    decode_real_time_factor: float
    date_utc: str
    processor: str
    device: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    pipeline: Pipeline, request: ContinuationRequest, prompt: Waveform | None = None, repeats: int = 1
) -> Speed:
    """The run with the median total of `repeats`, after one to warm up (long enough to be marked), not counted."""
    prompt = synthetic_prompt(request.prompt_s) if prompt is None else prompt
    warm_up = ContinuationRequest(prompt_s=request.prompt_s, continuation_s=3.0, num_continuations=1)
    *_, _ = pipeline.continue_prompt(prompt, warm_up)
    runs = [_timed_run(pipeline, prompt, request) for _ in range(repeats)]
    result, processor_s = sorted(runs, key=lambda run: run[0].seconds)[(repeats - 1) // 2]
    generated_s = result.continuations[0].generated_part.duration_s
    stages = tuple(
        StageSpeed(
            stage=name,
            steps=timing.steps,
            tokens=timing.tokens,
            seconds=timing.seconds,
            tokens_per_s=timing.tokens_per_s,
            ms_per_step=timing.ms_per_step,
            real_time_factor=timing.seconds / generated_s,
        )
        for name, timing in result.timings.items()
    )
    encode, decode = _codec_factors(pipeline)
    return Speed(
        checkpoint=pipeline.models.info.name,
        generated_s=generated_s,
        num_continuations=request.num_continuations,
        stages=stages,
        seconds=result.seconds,
        processor_s=processor_s,
        real_time_factor=result.real_time_factor,
        encode_real_time_factor=encode,
        decode_real_time_factor=decode,
        date_utc=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        processor=processor_name(),
        device=describe_device(pipeline.device),
        versions=versions(),
    )


def table(result: dict[str, Any]) -> str:
    """The figures as text, widths fitted."""
    fields = {field.name: result[field.name] for field in dataclasses.fields(Speed)}
    speed = Speed(**fields | {"stages": tuple(StageSpeed(**stage) for stage in result["stages"])})
    head = ("stage", "steps", "tokens", "s", "tokens/s", "ms/step", "real-time factor")
    rows = [
        (
            stage.stage,
            str(stage.steps or ""),
            str(stage.tokens or ""),
            f"{stage.seconds:.2f}",
            f"{stage.tokens_per_s:.0f}" if stage.tokens else "",
            f"{stage.ms_per_step:.2f}" if stage.steps else "",
            f"{stage.real_time_factor:.3f}",
        )
        for stage in speed.stages
    ]
    rows.append(("whole", "", "", f"{speed.seconds:.2f}", "", "", f"{speed.real_time_factor:.3f}"))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in (head, *rows))
    ]
    named = ", ".join(f"{name} {version}" for name, version in speed.versions.items())
    asked = f"{speed.num_continuations} x {speed.generated_s:.2f} s of continuation"
    return "\n".join(
        [
            f"{speed.checkpoint}: {asked}, {speed.device}, {speed.processor}",
            f"{speed.date_utc} UTC, {named}",
            "",
            *lines,
            "",
            f"processor time of the run, all threads: {speed.processor_s:.2f} s",
            f"codec alone, {CODEC_CLIP_S:g} s: encode {speed.encode_real_time_factor:.4f}, "
            f"decode {speed.decode_real_time_factor:.4f} (real-time factors)",
        ]
    )


def synthetic_prompt(seconds: float) -> Waveform:
    """Notes of three harmonics, four a second: speed hardly depends on what is continued."""
    time_s = torch.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = 220.0 * 2.0 ** ((time_s * 4.0).floor() * 7.0 % 12.0 / 12.0)
    phase = 2.0 * math.pi * pitch_hz.double().cumsum(0).float() / SAMPLE_RATE_HZ
    decay = torch.exp(-6.0 * (time_s * 4.0).frac() / 4.0)
    return Waveform(0.2 * decay * sum(torch.sin(phase * n) / n for n in (1, 2, 3)))


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _timed_run(pipeline: Pipeline, prompt: Waveform, request: ContinuationRequest) -> tuple[Result, float]:
    start = time.process_time()
    *_, result = pipeline.continue_prompt(prompt, request)
    return result, time.process_time() - start


@torch.inference_mode()
def _codec_factors(pipeline: Pipeline) -> tuple[float, float]:
    """Real-time factors of encoding and of decoding one clip, the median of three."""
    codec = pipeline.models.codec
    clip = synthetic_prompt(CODEC_CLIP_S).samples[None].to(pipeline.device)
    codes = codec.encode(clip)
    encode = _median_s(lambda: codec.encode(clip).cpu())
    decode = _median_s(lambda: codec.decode(codes).cpu())
    return encode / CODEC_CLIP_S, decode / CODEC_CLIP_S


def _median_s(work: Callable[[], object], repeats: int = 3) -> float:
    seconds = []
    work()
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
