"""A verdict: how long it takes, what its parts take, and what its matrix products alone would."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from audiolm.benchmark.stages import synthetic_prompt
from audiolm.benchmark.timing import interleaved
from audiolm.checkpoints import registry
from audiolm.detector.network import mel_frames
from audiolm.errors import RequestError

VERDICT, PRODUCTS = "verdict", "its matrix products alone, in bfloat16"
PRODUCT_SIZES = 512, 512, 512  # near those of the stages: [steps, width] x [width, more]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, Any]:
    """Raises RequestError for a checkpoint without a detector, CheckpointError."""
    detector = registry.load(args.checkpoint, None, torch.device("cpu")).detector
    if detector is None:
        raise RequestError(f"{args.checkpoint} has no detector")
    clip = synthetic_prompt(args.seconds)
    waveforms = clip.samples[None]
    with FlopCounterMode(display=False) as counter:
        detector.segment_logits(waveforms)
    works: dict[str, Callable[[], object]] = {
        VERDICT: lambda: detector.judge(clip),
        "what its branches read": lambda: detector.view(waveforms),
        "log-mel frames, of that": lambda: mel_frames(waveforms, detector.config.num_mels),
        "saliency": lambda: detector.saliency(clip),
        PRODUCTS: products(counter.get_total_flops()),
    }
    times = interleaved(works, args.runs)
    return {
        "seconds": args.seconds,
        "operations": counter.get_total_flops(),
        "parts": {name: {"median_s": each.median_s, "fastest_s": each.fastest_s} for name, each in times.items()},
    }


def products(operations: int) -> Callable[[], None]:
    """A work of about so many additions and multiplications: what a processor that does nothing else would need."""
    rows, inner, columns = PRODUCT_SIZES
    first, second = torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()
    count = max(1, round(operations / (2 * rows * inner * columns)))

    def multiply() -> None:
        for _ in range(count):
            first @ second

    return multiply


def table(result: dict[str, Any]) -> str:
    parts = result["parts"]
    floor, width = parts[PRODUCTS]["median_s"], max(map(len, parts))
    head = f"{result['seconds']:g} s of sound, {result['operations'] / 1e9:.1f} GFLOP"
    lines = [
        f"{name:{width}}  median {own['median_s']:.3f} s, fastest {own['fastest_s']:.3f} s, "
        f"{own['median_s'] / floor:5.2f} x the products"
        for name, own in parts.items()
    ]
    return "\n".join([head, *lines])
