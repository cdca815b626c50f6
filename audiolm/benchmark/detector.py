"""A verdict: how long it takes, what its parts take, and what its matrix products alone would (without attention's)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from audiolm.benchmark.stages import synthetic_prompt
from audiolm.benchmark.timing import interleaved
from audiolm.checkpoints import registry
from audiolm.checkpoints.listener import multiplies_bfloat16
from audiolm.detector.network import mel_frames
from audiolm.errors import RequestError

VERDICT, PRODUCTS = "verdict", "its products alone"
PRODUCT_SIZES = 512, 512, 512  # near those of the stages: [steps, width] x [width, more]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, Any]:
    """Raises RequestError for a checkpoint without a detector or a clip that it does not look at, CheckpointError."""
    detector = registry.load(args.checkpoint, None, torch.device("cpu")).detector
    if detector is None:
        raise RequestError(f"{args.checkpoint} has no detector")
    if not args.seconds > 0:
        raise RequestError(f"--seconds must be over 0, found {args.seconds:g}")
    clip = synthetic_prompt(args.seconds)
    verdict = detector.judge(clip)
    with FlopCounterMode(display=False) as counter:
        detector.judge(clip)
    operations = counter.get_total_flops()
    if not operations:
        raise RequestError(f"a verdict that costs nothing: {verdict.reason}")
    works: dict[str, Callable[[], object]] = {
        VERDICT: lambda: detector.judge(clip),
        "what its branches read": lambda: detector.view(clip.samples[None]),
        "log-mel frames, of that": lambda: mel_frames(clip.samples[None], detector.config.num_mels),
        "saliency": lambda: detector.saliency(clip),
        PRODUCTS: products(operations, torch.bfloat16 if multiplies_bfloat16(torch.device("cpu")) else torch.float32),
    }
    times = interleaved(works, args.runs)
    return {
        "seconds": args.seconds,
        "verdict": verdict.label,
        "reason": verdict.reason,
        "operations": operations,
        "parts": {name: {"median_s": each.median_s, "fastest_s": each.fastest_s} for name, each in times.items()},
    }


def products(operations: int, dtype: torch.dtype) -> Callable[[], None]:
    """A work of about so many additions and multiplications: what a processor that does nothing else would need."""
    rows, inner, columns = PRODUCT_SIZES
    first, second = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    count = max(1, round(operations / (2 * rows * inner * columns)))

    def multiply() -> None:
        for _ in range(count):
            first @ second

    return multiply


def table(result: dict[str, Any]) -> str:
    parts = result["parts"]
    floor, width = parts[PRODUCTS]["median_s"], max(map(len, parts))
    head = f"{result['seconds']:g} s of notes, {result['operations'] / 1e9:.1f} GFLOP: {result['verdict']}"
    lines = [
        f"{name:{width}}  median {own['median_s']:.3f} s, fastest {own['fastest_s']:.3f} s, "
        f"{own['median_s'] / floor:5.2f} x the products"
        for name, own in parts.items()
    ]
    return "\n".join([head, *lines])
