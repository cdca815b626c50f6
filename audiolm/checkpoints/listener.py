"""How a checkpoint's own models hear a recording: what its tokens cost the stages that would have generated them.

A recording is encoded again, and the stages say, teacher forced, how far they expected each token. Sampling favours
what a model expects; what people say and play surprises it more, and in other places. A detector that reads this
hears generation itself, whatever the codec, the level or the band (for text: GLTR, arXiv 1906.04043).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from audiolm.audio.levelling import level_gain
from audiolm.codec import Codec
from audiolm.config import FRAME_RATE_HZ, FRAMES_PER_SEMANTIC, SAMPLES_PER_FRAME, SAMPLES_PER_SEMANTIC
from audiolm.errors import AudioSilentError
from audiolm.lm import StageModel
from audiolm.lm.sequences import merge_repeats, split_runs
from audiolm.semantic import SemanticTokenizer

WINDOW_FRAMES = 6 * FRAME_RATE_HZ
FIGURES = 3  # of a token: surprisal and entropy in nats, log of its rank


class Listener:
    """Waveforms -> what every token cost, 50 times a second. Holds nothing of a recording.

    Long recordings are heard in windows of 6 s, each from nothing (the last one reaches back for what it lacks), so
    memory does not grow with them, and figures do not depend on how much went before.
    """

    def __init__(self, codec: Codec, semantic: SemanticTokenizer, stages: Mapping[str, StageModel]) -> None:
        self.codec, self.semantic, self.stages = codec, semantic, stages

    @property
    def num_features(self) -> int:
        return FIGURES * sum(len(stage.config.levels) for stage in self.stages.values())

    @torch.no_grad()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """waveforms [B, T] -> [B, D, F], F = T // 640 * 2; D are the figures of every level of every stage.

        Rows are brought to the models' level. Those of a semantic run stand at all its frames.
        """
        num_frames = waveforms.shape[1] // SAMPLES_PER_SEMANTIC * FRAMES_PER_SEMANTIC
        levelled = torch.stack([_levelled(row) for row in waveforms])[:, : num_frames * SAMPLES_PER_FRAME]
        parts = []
        for first in range(0, num_frames, WINDOW_FRAMES):
            end = min(first + WINDOW_FRAMES, num_frames)
            start = max(0, end - WINDOW_FRAMES)
            heard = self._window(levelled[:, start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME])
            parts.append(heard[:, :, first - start :])
        return torch.cat(parts, dim=2) if parts else waveforms.new_zeros(len(waveforms), self.num_features, 0)

    def _window(self, waveforms: Tensor) -> Tensor:
        semantic, codes = self.semantic.encode(waveforms), self.codec.encode(waveforms)
        num_coarse, num_levels = (len(self.stages[name].config.levels) for name in ("coarse", "fine"))
        codes = codes[:, :, : num_coarse + num_levels]
        with torch.autocast(waveforms.device.type, torch.bfloat16):
            parts = [
                self._semantic(semantic).repeat_interleave(FRAMES_PER_SEMANTIC, dim=1),
                _figures(self.stages["coarse"], codes[:, :, :num_coarse], semantic[:, :, None]),
                self._fine(codes, num_coarse),
            ]
        return torch.cat(parts, dim=2).mT

    def _semantic(self, ids: Tensor) -> Tensor:
        """ids [B, S] -> [B, S, D]. Rows of fewer steps are filled up at the end, which no step before it sees."""
        stage = self.stages["semantic"]
        rows = [_steps(stage, row) for row in ids]
        steps = torch.nn.utils.rnn.pad_sequence([steps for steps, _ in rows], batch_first=True)
        figures = _figures(stage, steps, None)
        return torch.stack(
            [own[: len(runs)].repeat_interleave(runs, dim=0) for own, (_, runs) in zip(figures, rows, strict=True)]
        )

    def _fine(self, codes: Tensor, num_coarse: int) -> Tensor:
        """codes [B, F, Q] -> [B, F, D], in the windows that the stage was trained on."""
        stage = self.stages["fine"]
        windows = codes.split(stage.config.max_steps, dim=1)
        return torch.cat([_figures(stage, one[:, :, num_coarse:], one[:, :, :num_coarse]) for one in windows], dim=1)


def _steps(stage: StageModel, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Semantic ids [S] -> (the stage's steps [R, L] for them, how many positions each stands for [R])."""
    merged, runs = merge_repeats(ids)
    if stage.config.layout == "flattened":
        return merged[:, None], runs
    merged, runs = split_runs(merged, runs, stage.config.levels[1])
    return torch.stack([merged, runs - 1], dim=1), runs


def _figures(stage: StageModel, targets: Tensor, condition: Tensor | None) -> Tensor:
    """targets [B, N, L] -> [B, N, L * FIGURES] float32."""
    figures = []
    for level, scores in enumerate(stage.logits(targets, condition)):
        log_p = scores.float().log_softmax(dim=-1)
        own = log_p.gather(-1, targets[..., level, None])
        rank = (log_p > own).sum(dim=-1) + 1
        figures += [-own[..., 0], -(log_p.exp() * log_p).sum(dim=-1), rank.float().log()]
    return torch.stack(figures, dim=-1)


def _levelled(samples: Tensor) -> Tensor:
    """[T] without constant offset, at the models' level; silence stays silence."""
    centred = samples.float() - samples.float().mean()
    try:
        return centred * level_gain(centred)
    except AudioSilentError:
        return centred
