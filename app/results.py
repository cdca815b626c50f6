"""What the service's runs yield besides the pipeline's own events: values, with files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from audiolm.checkpoints import CheckpointInfo
from audiolm.detector import Verdict
from audiolm.events import Chunk, Continuation, Progress, Result, Sound
from audiolm.inspection.files import TimelineFiles
from audiolm.inspection.timeline import Timeline
from audiolm.receipt import Receipt
from audiolm.request import ContinuationRequest
from audiolm.streams import Waveform
from audiolm.watermark import MarkResult


@dataclass(frozen=True)
class Waiting:
    """Nothing new: `ahead` runs go first, for about `estimate_s` (None: not known yet). With none ahead the run is
    being worked on. `again` says that the engine was lost and the run has begun anew."""

    ahead: int
    elapsed_s: float
    estimate_s: float | None = None
    again: bool = False


@dataclass(frozen=True)
class Loading:
    """The device is this run's; the recording and the checkpoint are being read."""

    checkpoint: str


@dataclass(frozen=True)
class Started:
    """The checkpoint is ready and the recording read, at most as much of it as is asked for.

    The run keeps `prompt_frames` of it; the whole output has `num_frames`. Levels are counted a stage.
    """

    checkpoint: CheckpointInfo
    options: ContinuationRequest
    recording_s: float
    prompt_frames: int
    num_frames: int
    num_levels: dict[str, int]


@dataclass(frozen=True)
class SavedContinuation:
    """One continuation and its files: the whole join, the continuation alone, the tokens and the receipt.

    `mark` says whether the watermark in what was generated is found again; None where it was not marked.
    """

    continuation: Continuation
    timeline: Timeline  # without scores
    mark: MarkResult | None
    whole: Path
    generated: Path
    tokens: Path
    receipt: Path

    @property
    def paths(self) -> list[Path]:
        return [self.whole, self.generated, self.tokens, self.receipt]


@dataclass(frozen=True)
class Finished:
    """The end of a continuation run."""

    checkpoint: CheckpointInfo
    result: Result
    saved: tuple[SavedContinuation, ...]
    folder: Path
    elapsed_s: float


@dataclass(frozen=True)
class Reconstructed:
    """The recording and its reconstructions from the first k quantizer levels, as files; most levels first."""

    checkpoint: CheckpointInfo
    original: Path
    by_levels: dict[int, Path]
    waveforms: dict[int | None, Waveform]  # None: the original
    folder: Path


@dataclass(frozen=True)
class Hearing:
    """A sound before the detector. `saliency` [mels, frames] says what in it spoke for "generated" (positive) and
    against, zero before the part that was judged; None where the verdict is withheld."""

    waveform: Waveform
    audio: Path
    verdict: Verdict
    saliency: Tensor | None


@dataclass(frozen=True)
class Version:
    """One of several versions of a clip, all of one length; `figures` are named with their units."""

    label: str
    waveform: Waveform
    audio: Path
    generated: bool
    figures: Mapping[str, float | None] = field(default_factory=dict)
    receipt: Receipt | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Compared:
    """Versions to switch between, the one that the others are compared with first. `notes` say what is missing."""

    checkpoint: CheckpointInfo
    kind: str  # "ladder", "voices", "ablations" or "control"
    versions: tuple[Version, ...]
    folder: Path
    prompt_s: float = 0.0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A recording, judged and searched for a watermark; and judged once more through the codec, as the `control`.

    The control is None where the codec cannot take the recording: `no_control` says why. `receipt` is the one in the
    recording's file, if it has any.
    """

    checkpoint: CheckpointInfo
    recording: Hearing
    mark: MarkResult
    receipt: Receipt | None
    control: Hearing | None
    no_control: str
    folder: Path
    elapsed_s: float

    @property
    def versions(self) -> Compared:
        """The recording and its control, to switch between."""
        heard = {"the recording": self.recording, "through the codec (control)": self.control}
        versions = (
            Version(label, one.waveform, one.audio, self.receipt is not None, verdict=one.verdict)
            for label, one in heard.items()
            if one is not None
        )
        return Compared(self.checkpoint, "control", tuple(versions), self.folder)


@dataclass(frozen=True)
class Inspected:
    """A clip's timeline. Where a run `made` it its tokens are those of the run, else they were read from the sound."""

    checkpoint: CheckpointInfo
    timeline: Timeline
    made: Continuation | None
    files: TimelineFiles
    elapsed_s: float


Course = Waiting | Loading | Started | Progress | Chunk | Sound
"""How a run goes; whatever else an iterator of events yields is the run's result."""
