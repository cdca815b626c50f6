"""`python -m audiolm.training tokens`: the token cache of one or more corpora, made with two training runs.

A folder given as a tokenizer is a run folder, or a checkpoint folder that holds the component.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from audiolm.checkpoints.format import CONFIG_FILE, load_checkpoint
from audiolm.checkpoints.strict_json import read_object
from audiolm.checkpoints.tensors import token_hash
from audiolm.data.corpus import SPLITS, Corpus
from audiolm.data.tokens import build, list_recordings
from audiolm.device import pick_device
from audiolm.errors import TrainingError
from audiolm.training.runs import load_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="corpus folders")
    parser.add_argument("--codec", type=Path, required=True, help="codec run, or a checkpoint folder")
    parser.add_argument("--semantic", type=Path, required=True, help="semantic tokenizer run, or a checkpoint folder")
    parser.add_argument("--out", type=Path, required=True, help="token cache to write")
    parser.add_argument(
        "--speed-copies", type=float, nargs="*", default=[], help="speeds of further copies of the training items"
    )
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS, help="of the items to encode")
    parser.add_argument("--batch-s", type=float, default=160.0, help="seconds of audio encoded at once")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto")


def run(args: argparse.Namespace) -> None:
    """Raises TrainingError for a run of another component, CheckpointError and DataError for unreadable folders."""
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    codec = load_tokenizer(args.codec, "codec").to(device)
    semantic = load_tokenizer(args.semantic, "semantic").to(device)
    recordings = list_recordings([Corpus(folder) for folder in args.data], args.speed_copies)
    build(
        [recording for recording in recordings if recording.item.split in args.splits],
        lambda waveforms: codec.encode(waveforms.to(device)).cpu(),
        lambda waveforms: semantic.encode(waveforms.to(device)).cpu(),
        out=args.out,
        meta={
            "codec": token_hash(codec.state_dict()),
            "semantic": token_hash(semantic.state_dict()),
            "num_levels": codec.config.quantizer.num_levels,
            "codebook_size": codec.config.quantizer.codebook_size,
            "num_clusters": semantic.config.num_clusters,
        },
        batch_s=args.batch_s,
    )


def load_tokenizer(folder: Path, component: str) -> nn.Module:
    """The codec or semantic tokenizer of a run folder or a checkpoint folder, in eval mode on the CPU.

    Raises TrainingError when a run folder holds another component, CheckpointError when the folder is unreadable.
    """
    if "components" in read_object(folder / CONFIG_FILE):
        return getattr(load_checkpoint(folder), component)
    found, module, _ = load_run(folder)
    if found != component:
        raise TrainingError(f"{folder} holds a run of {found!r}, not of {component!r}")
    return module
