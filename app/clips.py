"""A recording that a visitor gave, with what its file says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from audiolm.audio import files
from audiolm.checkpoints import CheckpointInfo
from audiolm.errors import ReceiptError
from audiolm.events import Continuation
from audiolm.outputs import read_receipt
from audiolm.receipt import Receipt
from audiolm.streams import Waveform

SAME_WITHIN = 1e-3  # int16 there and back


@dataclass(frozen=True)
class Clip:
    """`receipt` is that of a file which a model of ours made and nobody has converted since."""

    waveform: Waveform
    receipt: Receipt | None

    @property
    def generated(self) -> bool:
        return self.receipt is not None

    def made_by(self, known: Iterable[Continuation], info: CheckpointInfo) -> Continuation | None:
        """The run among `known`, of this checkpoint, whose output, from its start, this is."""
        own = [one for one in known if self.receipt == one.receipt and info.sha256 == one.receipt.checkpoint_sha256]
        return next((one for one in own if self._starts(one.waveform)), None)

    def _starts(self, whole: Waveform) -> bool:
        """False for the file of a continuation alone, which has the same receipt."""
        own = self.waveform.samples
        start = whole.samples[: own.shape[0]]
        return start.shape == own.shape and bool((start - own).abs().max() < SAME_WITHIN)


def read_clip(path: Path, max_s: float) -> Clip:
    """At most `max_s` of a recording. Raises AudioError."""
    waveform = files.read_waveform(path, max_s=max_s)
    try:
        return Clip(waveform, read_receipt(path) if path.suffix.lower() == ".wav" else None)
    except ReceiptError:
        return Clip(waveform, None)
