"""Encoding and decoding: real-time factors of this codec, whole and as a stream, and of others at random weights."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from audiolm.benchmark.peers import codec_peers
from audiolm.benchmark.stages import CODEC_CLIP_S, synthetic_prompt
from audiolm.benchmark.timing import interleaved
from audiolm.checkpoints import registry
from audiolm.codec import Codec

STREAM_FRAMES = 25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="speech-small", help="embedded name, folder or Hub id")
    parser.add_argument("--peers", action="store_true", help="other software too, where it is installed")


def run(args: argparse.Namespace) -> dict[str, Any]:
    works = own_works(registry.load(args.checkpoint, None, torch.device("cpu")).codec)
    for name, (encode, decode) in (codec_peers(CODEC_CLIP_S) if args.peers else {}).items():
        works |= {f"{name}: encode": encode, f"{name}: decode": decode}
    times = interleaved(works, args.runs)
    return {"real_time_factors": {name: each.median_s / CODEC_CLIP_S for name, each in times.items()}}


def own_works(codec: Codec) -> dict[str, Callable[[], object]]:
    clip = synthetic_prompt(CODEC_CLIP_S).samples[None]
    codes = codec.encode(clip)

    def stream() -> None:
        state = codec.init_decode_state(1)
        for block in codes.split(STREAM_FRAMES, dim=1):
            _, state = codec.decode_step(block, state)
        codec.decode_flush(state)

    return {
        "encode": lambda: codec.encode(clip),
        "decode": lambda: codec.decode(codes),
        f"decode in blocks of {STREAM_FRAMES} frames": stream,
    }


def table(result: dict[str, Any]) -> str:
    factors = result["real_time_factors"]
    width = max(map(len, factors))
    return "\n".join([f"real-time factors, {CODEC_CLIP_S:g} s", *(f"{n:{width}}  {f:.4f}" for n, f in factors.items())])
