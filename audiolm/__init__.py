"""AudioLM in the open: speech and piano continued from a few seconds of sound (arXiv 2209.03143).

One direction, from sound to sound:

    file or microphone
      -> audio.files         Waveform, 16 kHz mono; hostile input stops here
      -> codec.encode        AcousticTokens [F, Q] at 50 Hz: what it sounds like (levels 0..3 coarse, the rest fine)
         semantic.encode     SemanticTokens [S] at 25 Hz: what is said or played
      -> lm.sequences        merged repeats, flattened or stepped layouts; pure and reversible
      -> stages              semantic stage: goes on with the content
                             coarse stage:   content -> the first codec levels, in the prompt's voice
                             fine stage:     coarse levels -> the other levels, in windows of 3 s
      -> codec.decode        Waveform
      -> detector.judge      is the continuation recognisable as generated? with its error rates
      -> outputs             WAV + tokens + receipt (what was used, and the seeds that repeat it)

`pipeline.Pipeline` is that arrow as a value: its methods are generators of `Progress`, `Chunk` and `Result` events, and
whoever iterates may stop at any of them. Runs of one pipeline share the slots of its stages (`slots`); one that is
streamed has all stages going at once, and yields its `Sound` second by second (`streaming`). `checkpoints` loads the
models from the tree, a folder or the Hub; `training` makes them from what `data` prepares; `evaluation` and `benchmark`
measure them; `app` shows them.

The public names below are imported on first use, so that `import audiolm` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AcousticTokens": "audiolm.streams",
    "AudioLMError": "audiolm.errors",
    "ContinuationRequest": "audiolm.request",
    "Pipeline": "audiolm.pipeline",
    "Receipt": "audiolm.receipt",
    "SamplingConfig": "audiolm.config",
    "SemanticTokens": "audiolm.streams",
    "Waveform": "audiolm.streams",
    "load_checkpoint": "audiolm.checkpoints.registry",
    "read_waveform": "audiolm.audio.files",
    "write_wav": "audiolm.audio.files",
}
_NAMES_THERE = {"load_checkpoint": "load"}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'audiolm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), _NAMES_THERE.get(name, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
