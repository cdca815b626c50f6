"""What a caller may ask of the pipeline."""

from __future__ import annotations

from dataclasses import dataclass

from audiolm.config import USUAL_SAMPLING, Config, SamplingConfig
from audiolm.errors import RequestError

PROMPT_PARTS = ("codec", "original")
FINE_DECODERS = ("autoregressive", "masked")
MIN_PROMPT_S, MAX_PROMPT_S = 0.5, 30.0
MIN_CONTINUATION_S, MAX_CONTINUATION_S = 0.2, 60.0
MAX_CONTINUATIONS = 16
MAX_SEED = 2**53 - 1  # receipts are JSON, and JSON readers in browsers know no larger integer


@dataclass(frozen=True)
class ContinuationRequest(Config):
    """One run: lengths in seconds, how many continuations, the master seed and the sampling of each stage.

    `prompt_s` is how much of the start of the recording is used; less where the recording is shorter. Its last 40 ms
    are made anew, and `continuation_s` more. `prompt_part` says what is heard before the join: the prompt through the
    codec, or the recording itself. The sampling is the paper's where none is given; a checkpoint's own defaults are
    `CheckpointInfo.sampling`, by the same names.
    `fine_decoder`: the fine stage frame by frame, or windows of it in a few parallel passes, where a checkpoint can.

    Raises RequestError, with the bounds and the value found.
    """

    prompt_s: float = 3.0
    continuation_s: float = 7.0
    num_continuations: int = 2
    seed: int = 0
    semantic: SamplingConfig = USUAL_SAMPLING["semantic"]
    coarse: SamplingConfig = USUAL_SAMPLING["coarse"]
    fine: SamplingConfig = USUAL_SAMPLING["fine"]
    prompt_part: str = "codec"
    fine_decoder: str = "autoregressive"

    def __post_init__(self) -> None:
        _require_between("prompt length (s)", self.prompt_s, MIN_PROMPT_S, MAX_PROMPT_S)
        _require_between("continuation length (s)", self.continuation_s, MIN_CONTINUATION_S, MAX_CONTINUATION_S)
        _require_between("number of continuations", self.num_continuations, 1, MAX_CONTINUATIONS)
        _require_between("seed", self.seed, 0, MAX_SEED)
        if self.prompt_part not in PROMPT_PARTS:
            raise RequestError(f"prompt part must be one of {', '.join(PROMPT_PARTS)}, found {self.prompt_part!r}")
        if self.fine_decoder not in FINE_DECODERS:
            raise RequestError(f"fine decoder must be one of {', '.join(FINE_DECODERS)}, found {self.fine_decoder!r}")


def _require_between(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also refuses NaN
        raise RequestError(f"{what} must be {low}..{high}, found {value}")
