"""Recordings as a corpus whose items are all of the split "test": real material beside the hold-out."""

from __future__ import annotations

import argparse
from pathlib import Path

from audiolm.audio.files import read_waveform
from audiolm.audio.levelling import level_gain
from audiolm.data.corpus import CorpusWriter, summary, to_pcm
from audiolm.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="recordings: WAV, FLAC, MP3, OGG, …")
    parser.add_argument("--out", type=Path, required=True, help="corpus folder to write")
    parser.add_argument("--licence", default="not stated", help="of all the recordings, for the manifest")


def run(args: argparse.Namespace) -> None:
    """One item a file, its mean taken out and at the models' level; id and group are the file's name without ending.

    All files are read before any is written. Raises: DataError for two files of one name, whatever their endings;
    AudioError for the first that cannot be read, or that holds no sound.
    """
    names = [path.stem for path in args.files]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"recordings are told apart by their file names, found several {', '.join(repeated)}")
    waveforms = [read_waveform(path, trusted=True).samples for path in args.files]
    with CorpusWriter(args.out) as writer:
        for path, samples in zip(args.files, waveforms, strict=True):
            centred = samples - samples.mean()
            pcm = to_pcm((centred * level_gain(centred)).numpy())
            writer.add(pcm, id=path.stem, group=path.stem, split="test", source=path.name, licence=args.licence)
    print(f"{args.out}: {summary(writer.items)}")
