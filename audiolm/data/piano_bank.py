"""The command that makes a sample bank: of the Salamander samples, or of a SoundFont's piano."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from audiolm.config import SAMPLE_RATE_HZ
from audiolm.data import salamander, soundfont
from audiolm.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--raw", type=Path, help="folder with salamander/audio/*.ogg")
    source.add_argument("--soundfont", type=Path, help=".sf2 file, played by the program fluidsynth")
    parser.add_argument("--licence", help="of the sound font: stands in the manifest of what is rendered with it")
    parser.add_argument("--out", type=Path, required=True, help=".npz file to write")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 3, 5, 8, 10, 12, 14, 16], help="of 1..16")
    parser.add_argument("--max-s", type=float, default=8.0, help="longest sample kept")


def run(args: argparse.Namespace) -> None:
    """Raises: DataError when samples, font or program are missing, or a font comes without its licence."""
    torch.set_num_threads(1)
    layers = sorted(args.layers)
    if args.soundfont is None:
        bank = salamander.build(args.raw / "salamander" / "audio", layers, args.max_s)
    elif args.licence is None:
        raise DataError("a sound font needs --licence, such as 'MIT (samples: FluidR3, Frank Wen)'")
    else:
        velocities = [salamander.LAYER_VELOCITIES[layer - 1] for layer in layers]
        bank = soundfont.build(args.soundfont, velocities, args.max_s, args.licence)
    bank.write(args.out)
    minutes = len(bank.pcm) / SAMPLE_RATE_HZ / 60.0
    print(f"{args.out}: {bank.name}, {len(bank.roots)} roots x {len(bank.velocities)} layers, {minutes:.1f} min")
